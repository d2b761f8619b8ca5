//go:build linux

package egress

import (
	"errors"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tatami-faas/tatami/internal/fault"
)

// space is a range that no worker on this machine uses.
const space = "10.119.254.0/23"

func TestAddresses(t *testing.T) {
	a, b := newAddresses(netip.MustParsePrefix(space)), newAddresses(netip.MustParsePrefix(space))
	t.Cleanup(a.close)
	t.Cleanup(b.close)
	seen := map[slot]bool{}
	take := func(from *addresses) slot {
		t.Helper()
		s, err := from.take()
		if err != nil || seen[s] {
			t.Fatalf("slot %d taken twice, or %v", s, err)
		}
		seen[s] = true
		return s
	}
	first := take(a)
	if outer, inner := a.pair(first); outer.String() != "10.119.254.0" || inner.String() != "10.119.254.1" {
		t.Errorf("the first link has %s and %s", outer, inner)
	}
	if outer, _ := b.pair(take(b)); outer.String() != "10.119.255.0" {
		t.Errorf("another node's first link has %s", outer)
	}
	for range perBlock - 1 {
		take(a)
	}
	var f *fault.Error
	if _, err := a.take(); !errors.As(err, &f) || f.Code != fault.CodeNoCapacity {
		t.Errorf("more links than addresses: %v", err)
	}
	a.give(first)
	delete(seen, first)
	if again := take(a); again != first {
		t.Errorf("the free slot is %d, not %d", again, first)
	}
	if err := a.claim(slot(perBlock)); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("an address of another node's was claimed: %v", err)
	}
	// What held them has ended.
	b.close()
	if err := a.claim(slot(perBlock)); err != nil {
		t.Error(err)
	}
}

func TestSlotNames(t *testing.T) {
	t.Parallel()
	const prefix = "ttabc123"
	for _, s := range []slot{0, 1, 0x7fff} {
		name := s.name(prefix)
		if got, ok := slotOf(prefix, name); !ok || got != s || !isOurs(name) || len(name) >= unix.IFNAMSIZ {
			t.Errorf("%s is read as %d, %t", name, got, ok)
		}
	}
	for _, name := range []string{"", "eth0", prefix, prefix + "00", prefix + "zzzz", "ttabc1240000", prefix + "00001"} {
		if s, ok := slotOf(prefix, name); ok {
			t.Errorf("%q is read as %d", name, s)
		}
	}
}
