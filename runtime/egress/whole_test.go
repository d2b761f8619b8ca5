//go:build linux

package egress

import (
	"errors"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
)

// A listing that is broken off is begun again, but not for ever; other errors are told.
func TestWhole(t *testing.T) {
	t.Parallel()
	other := errors.New("other")
	for _, c := range []struct {
		broken int
		last   error
		calls  int
		want   error
	}{
		{0, nil, 1, nil}, {3, nil, 4, nil}, {2, other, 3, other}, {1000, nil, mostListings, netlink.ErrDumpInterrupted},
	} {
		calls := 0
		got, err := whole(func() ([]int, error) {
			if calls++; calls <= c.broken {
				return []int{1}, netlink.ErrDumpInterrupted
			}
			return []int{1, 2}, c.last
		})
		if calls != c.calls || !errors.Is(err, c.want) || err == nil && !slices.Equal(got, []int{1, 2}) {
			t.Errorf("%d broken off: %d calls, %v, %v", c.broken, calls, got, err)
		}
	}
}
