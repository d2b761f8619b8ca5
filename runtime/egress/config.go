package egress

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"slices"

	"github.com/tatami-faas/tatami/internal/fault"
)

// DefaultRange is where the links' addresses are taken from unless Config says otherwise.
const DefaultRange = "10.119.0.0/16"

// maxEntries bounds what becomes a rule each.
const maxEntries = 64

// Config says what a node's sandboxes may reach.
type Config struct {
	// Name tells this node's devices and table from those of others in the same network namespace. Required; the same at every start.
	Name string
	// State is a file that keeps which of the host's settings were changed. Required; a reboot should remove it.
	State string
	// Range is the IPv4 network of the links' addresses, /16 to /24. Default DefaultRange.
	Range netip.Prefix
	// Allow are private IPv4 networks that sandboxes may reach besides the internet; never the host's own addresses. At most 64.
	Allow []netip.Prefix
	// DNS are the nameservers that sandboxes are told. Default: the host's, without those on its loopback device. At most 64.
	DNS []netip.Addr
}

func (c Config) withDefaults() Config {
	if !c.Range.IsValid() {
		c.Range = netip.MustParsePrefix(DefaultRange)
	}
	return c
}

// Validate names the flag of `tatami up` that is wrong.
func (c Config) Validate() error {
	c = c.withDefaults()
	bad := func(field, format string, args ...any) error {
		return fault.New(fault.CodeInvalidRequest, "--"+field+": "+format, args...).WithField(field)
	}
	if r := c.Range; !r.Addr().Is4() || r.Bits() < 16 || r.Bits() > 24 || r != r.Masked() || !r.Addr().IsPrivate() && !carrierGrade.Contains(r.Addr()) {
		return bad("egress-range", "%s is no private IPv4 network from /16 to /24", r)
	}
	if len(c.Allow) > maxEntries || len(c.DNS) > maxEntries {
		return bad("egress-allow", "at most %d networks and nameservers can be named", maxEntries)
	}
	for _, p := range c.Allow {
		if !p.IsValid() || !p.Addr().Is4() || p != p.Masked() {
			return bad("egress-allow", "%s is no IPv4 network such as 10.1.0.0/16", p)
		}
		if p.Overlaps(c.Range) || p.Overlaps(loopback) || p.Overlaps(linkLocal) {
			return bad("egress-allow", "%s holds addresses that no function may reach: its neighbours', loopback or link-local ones", p)
		}
	}
	for _, a := range c.DNS {
		if !usable(a) {
			return bad("egress-dns", "%s is no IPv4 address of a nameserver that a function can reach", a)
		}
	}
	return nil
}

var (
	carrierGrade = netip.MustParsePrefix("100.64.0.0/10")
	loopback     = netip.MustParsePrefix("127.0.0.0/8")
	linkLocal    = netip.MustParsePrefix("169.254.0.0/16")
)

// closed are the networks that are not the internet.
func (c Config) closed() []netip.Prefix {
	out := []netip.Prefix{loopback, linkLocal, carrierGrade, c.Range}
	for _, s := range []string{
		"0.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.0.0.0/24", "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4",
	} {
		out = append(out, netip.MustParsePrefix(s))
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out)
}

const (
	tagLength  = 6
	namePrefix = "tt"
)

// tag is in the names of everything of this node's.
func (c Config) tag() string {
	sum := sha256.Sum256([]byte(c.Name))
	return hex.EncodeToString(sum[:])[:tagLength]
}
