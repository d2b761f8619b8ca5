//go:build linux

package escape

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The world beyond the test's own network: the node's device and the router at its other end.
const (
	nodeAddr   = "203.0.113.2"
	routerAddr = "203.0.113.1"
)

// Internet is a network namespace that the test's own reaches by one device: it owns an address of the internet and such as no function may
// reach, and serves on all of them.
type Internet struct {
	// Open is reached by whoever has egress.
	Open netip.Addr
	// Closed are beyond the node as well: metadata services and private networks.
	Closed []netip.Addr
}

// NewInternet makes it, for a test in a network of its own. It ends with the test's process.
func NewInternet(t *testing.T) *Internet {
	t.Helper()
	alone(t)
	world := &Internet{Open: netip.MustParseAddr("198.51.100.80")}
	for _, a := range []string{"169.254.170.2", "10.20.0.1", "172.16.5.5", "192.168.5.5", "100.64.0.5"} {
		world.Closed = append(world.Closed, netip.MustParseAddr(a))
	}
	var ns *os.File
	var listeners []net.Listener
	err := elsewhere(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		ns, err = os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, l := range listeners {
			l.Close()
		}
	})
	// Its listeners keep it.
	defer ns.Close()
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "up0"}, PeerName: "out0", PeerNamespace: netlink.NsFd(int(ns.Fd()))}
	if err := netlink.LinkAdd(link); err != nil {
		t.Fatal(err)
	}
	if err := elsewhere(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		if err := device("out0", routerAddr+"/24"); err != nil {
			return err
		}
		for _, a := range append([]netip.Addr{world.Open}, world.Closed...) {
			if err := device("lo", a.String()+"/32"); err != nil {
				return err
			}
			l, err := net.Listen("tcp", a.String()+":80")
			if err != nil {
				return err
			}
			listeners = append(listeners, l)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := device("up0", nodeAddr+"/24"); err != nil {
		t.Fatal(err)
	}
	if err := netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(routerAddr)}); err != nil {
		t.Fatal(err)
	}
	return world
}

// elsewhere runs f on a thread that ends with it; never on the process's first, which would not end.
func elsewhere(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			defer runtime.UnlockOSThread()
			done <- elsewhere(f)
			return
		}
		done <- f()
	}()
	return <-done
}

// device gives a device an address and switches it on.
func device(name, addr string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	a, err := netlink.ParseAddr(addr)
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(l, a); err != nil {
		return fmt.Errorf("address %s of %s: %w", addr, name, err)
	}
	return netlink.LinkSetUp(l)
}
