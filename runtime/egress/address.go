//go:build linux

package egress

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/tatami-faas/tatami/internal/fault"
)

const (
	// perBlock is how many links a /24 has, of two addresses each.
	perBlock  = 128
	blockBits = 24
)

// slot is the number of a link within the range.
type slot int

// addresses says which slots are in use. Blocks of them are taken from the range as they are needed, each held by a socket whose name
// no other process in the network namespace can have at the same time. It is not safe for use by several goroutines at once.
type addresses struct {
	space  netip.Prefix
	blocks map[int]*net.UnixListener
	used   map[slot]bool
}

func newAddresses(space netip.Prefix) *addresses {
	return &addresses{space: space, blocks: map[int]*net.UnixListener{}, used: map[slot]bool{}}
}

func (a *addresses) count() int { return 1 << (blockBits - a.space.Bits()) }

// take returns a free slot.
func (a *addresses) take() (slot, error) {
	for b := range a.count() {
		if a.blocks[b] == nil {
			continue
		}
		if s, ok := a.free(b); ok {
			return s, nil
		}
	}
	for b := range a.count() {
		if a.blocks[b] != nil {
			continue
		}
		err := a.hold(b)
		if errors.Is(err, unix.EADDRINUSE) {
			continue
		}
		if err != nil {
			return 0, err
		}
		s, _ := a.free(b)
		return s, nil
	}
	return 0, fault.New(fault.CodeNoCapacity, "all addresses for functions with egress are in use: %s has %d", a.space, a.count()*perBlock).
		WithHint("give the worker a larger --egress-range")
}

func (a *addresses) free(block int) (slot, bool) {
	for i := range perBlock {
		if s := slot(block*perBlock + i); !a.used[s] {
			a.used[s] = true
			return s, true
		}
	}
	return 0, false
}

// claim takes the slot of a link that exists already.
func (a *addresses) claim(s slot) error {
	if b := int(s) / perBlock; a.blocks[b] == nil {
		if err := a.hold(b); err != nil {
			return fmt.Errorf("hold the addresses of %s: %w", s.name(""), err)
		}
	}
	a.used[s] = true
	return nil
}

func (a *addresses) hold(block int) error {
	first, _ := a.pair(slot(block * perBlock))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: "@tatami-egress-" + first.String(), Net: "unix"})
	if err != nil {
		return err
	}
	a.blocks[block] = l
	return nil
}

func (a *addresses) give(s slot) { delete(a.used, s) }

func (a *addresses) close() {
	for b, l := range a.blocks {
		l.Close()
		delete(a.blocks, b)
	}
}

// pair are the addresses of a link's outer and inner end.
func (a *addresses) pair(s slot) (outer, inner netip.Addr) {
	base := binary.BigEndian.Uint32(a.space.Addr().AsSlice()) + 2*uint32(s)
	at := func(n uint32) netip.Addr { return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n))) }
	return at(base), at(base + 1)
}

// name is a device's.
func (s slot) name(prefix string) string { return fmt.Sprintf("%s%04x", prefix, int(s)) }

// slotOf reads a slot from the name of a device.
func slotOf(prefix, name string) (slot, bool) {
	if len(name) != len(prefix)+4 || name[:len(prefix)] != prefix {
		return 0, false
	}
	n, err := strconv.ParseUint(name[len(prefix):], 16, 16)
	return slot(n), err == nil
}
