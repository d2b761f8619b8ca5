package egress

import (
	"bufio"
	"io"
	"net/netip"
	"os"
	"strings"

	"github.com/tatami-faas/tatami/internal/fault"
)

// resolvFiles are where a host's nameservers are found, the first that has some wins. The later ones are for hosts whose resolver listens
// on loopback: there its own upstream servers are written down.
func resolvFiles() []string {
	return []string{"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf", "/run/NetworkManager/no-stub-resolv.conf"}
}

// maxNameservers is how many a resolver looks at.
const maxNameservers = 3

// nameservers are those that sandboxes are told.
func (c Config) nameservers(files []string) ([]netip.Addr, error) {
	if len(c.DNS) > 0 {
		return c.DNS[:min(len(c.DNS), maxNameservers)], nil
	}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			continue
		}
		found := parseNameservers(f)
		f.Close()
		if len(found) > 0 {
			return found, nil
		}
	}
	return nil, fault.New(fault.CodeUnavailable, "this machine has no nameserver that a function could reach: there is none with an IPv4 address other than loopback in %s",
		strings.Join(files, ", ")).WithHint("name one with the worker's --egress-dns")
}

// parseNameservers reads the usable ones of a resolv.conf, in order; a line of 64 KiB ends it.
func parseNameservers(r io.Reader) []netip.Addr {
	var out []netip.Addr
	for lines := bufio.NewScanner(r); lines.Scan() && len(out) < maxNameservers; {
		w := strings.Fields(lines.Text())
		if len(w) < 2 || w[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(w[1]); err == nil && usable(a) {
			out = append(out, a)
		}
	}
	return out
}

// usable reports whether a sandbox could reach the nameserver.
func usable(a netip.Addr) bool {
	return a.Is4() && !a.IsLoopback() && !a.IsUnspecified() && !a.IsMulticast()
}

// resolvConf is the text of a sandbox's /etc/resolv.conf.
func resolvConf(servers []netip.Addr) string {
	var b strings.Builder
	for _, a := range servers {
		b.WriteString("nameserver " + a.String() + "\n")
	}
	b.WriteString("options timeout:2 attempts:2\n")
	return b.String()
}
