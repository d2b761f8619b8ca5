//go:build linux

package egress

import (
	"errors"

	"github.com/vishvananda/netlink"
)

// mostListings is how often a listing is begun that is always broken off.
const mostListings = 20

// whole lists again where the kernel says that what is listed changed meanwhile, so that something may be missing.
func whole[T any](list func() ([]T, error)) (all []T, err error) {
	for range mostListings {
		if all, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return all, err
		}
	}
	return all, err
}

func links() ([]netlink.Link, error) { return whole(netlink.LinkList) }

func routes() ([]netlink.Route, error) {
	return whole(func() ([]netlink.Route, error) { return netlink.RouteList(nil, netlink.FAMILY_V4) })
}
