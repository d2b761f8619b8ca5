package egress

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tatami-faas/tatami/internal/fault"
)

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	prefixes := func(list ...string) (out []netip.Prefix) {
		for _, s := range list {
			out = append(out, netip.MustParsePrefix(s))
		}
		return out
	}
	for name, test := range map[string]struct {
		cfg   Config
		field string
	}{
		"defaults":             {Config{}, ""},
		"another range":        {Config{Range: netip.MustParsePrefix("192.168.200.0/24")}, ""},
		"carrier-grade":        {Config{Range: netip.MustParsePrefix("100.65.0.0/16")}, ""},
		"range of others":      {Config{Range: netip.MustParsePrefix("8.8.0.0/16")}, "egress-range"},
		"range too large":      {Config{Range: netip.MustParsePrefix("10.0.0.0/8")}, "egress-range"},
		"range too small":      {Config{Range: netip.MustParsePrefix("10.0.0.0/25")}, "egress-range"},
		"range with host bits": {Config{Range: netip.MustParsePrefix("10.1.2.3/16")}, "egress-range"},
		"range of IPv6":        {Config{Range: netip.MustParsePrefix("fd00::/16")}, "egress-range"},
		"allow":                {Config{Allow: prefixes("10.1.0.0/16", "192.168.1.7/32")}, ""},
		"allow neighbours":     {Config{Allow: prefixes("10.0.0.0/8")}, "egress-allow"},
		"allow metadata":       {Config{Allow: prefixes("169.254.169.254/32")}, "egress-allow"},
		"allow everything":     {Config{Allow: prefixes("0.0.0.0/0")}, "egress-allow"},
		"allow IPv6":           {Config{Allow: prefixes("fd00::/8")}, "egress-allow"},
		"too many":             {Config{Allow: slices.Repeat(prefixes("10.1.0.0/16"), 65)}, "egress-allow"},
		"nameserver":           {Config{DNS: []netip.Addr{netip.MustParseAddr("9.9.9.9")}}, ""},
		"loopback nameserver":  {Config{DNS: []netip.Addr{netip.MustParseAddr("127.0.0.53")}}, "egress-dns"},
		"nameserver of IPv6":   {Config{DNS: []netip.Addr{netip.MustParseAddr("2620:fe::9")}}, "egress-dns"},
	} {
		err := test.cfg.Validate()
		if f := fault.From(err); test.field == "" && err != nil || test.field != "" && (f == nil || f.Field != test.field) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestClosed(t *testing.T) {
	t.Parallel()
	closed := Config{}.withDefaults().closed()
	in := func(addr string) bool {
		return slices.ContainsFunc(closed, func(p netip.Prefix) bool { return p.Contains(netip.MustParseAddr(addr)) })
	}
	for _, a := range []string{"127.0.0.1", "10.119.3.4", "10.0.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254", "100.64.0.1", "224.0.0.1", "255.255.255.255", "0.0.0.0"} {
		if !in(a) {
			t.Errorf("%s is open", a)
		}
	}
	for _, a := range []string{"1.1.1.1", "172.32.0.1", "100.128.0.1", "192.0.1.1", "198.51.100.1", "223.255.255.255"} {
		if in(a) {
			t.Errorf("%s is closed", a)
		}
	}
}

func TestNameservers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	stub := file("stub", "# systemd-resolved\nnameserver 127.0.0.53\noptions edns0\nsearch example.com\n")
	upstream := file("upstream", "nameserver fe80::1\nnameserver 192.168.1.1\n nameserver 9.9.9.9\nnameserver 1.1.1.1\nnameserver 8.8.8.8\n")
	got, err := Config{}.nameservers([]string{filepath.Join(dir, "missing"), stub, upstream})
	want := []netip.Addr{netip.MustParseAddr("192.168.1.1"), netip.MustParseAddr("9.9.9.9"), netip.MustParseAddr("1.1.1.1")}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	if text := resolvConf(got[:1]); text != "nameserver 192.168.1.1\noptions timeout:2 attempts:2\n" {
		t.Errorf("%q", text)
	}
	if _, err := (Config{}).nameservers([]string{stub}); fault.From(err) == nil || !strings.Contains(fault.From(err).Hint, "--egress-dns") {
		t.Errorf("%v", err)
	}
	named := Config{DNS: want[1:2]}
	if got, err := named.nameservers([]string{stub}); err != nil || !slices.Equal(got, want[1:2]) {
		t.Errorf("%v, %v", got, err)
	}
}

func FuzzNameservers(f *testing.F) {
	f.Add("nameserver 192.168.1.1\nnameserver 127.0.0.53\n")
	f.Add("nameserver\x00 1.1.1.1\nsearch a b")
	f.Fuzz(func(t *testing.T, text string) {
		got := parseNameservers(strings.NewReader(text))
		if len(got) > maxNameservers {
			t.Errorf("%d nameservers", len(got))
		}
		for _, a := range got {
			if !usable(a) || !strings.Contains(text, a.String()) {
				t.Errorf("%q gave %s", text, a)
			}
		}
	})
}
