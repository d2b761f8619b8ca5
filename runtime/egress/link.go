//go:build linux

package egress

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// inner is the device's name inside a sandbox.
const inner = "eth0"

// noAddresses has the kernel give a device no IPv6 address of its own choice.
const noAddresses = 1

// makeLink makes the pair of devices, its inner end in the network namespace, ready for use.
func (n *Network) makeLink(s slot, owner string, netns *os.File) error {
	outerIP, innerIP := n.addresses.pair(s)
	raw, err := netns.SyscallConn()
	if err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = s.name(n.prefix), n.mtu
	var added error
	if err := raw.Control(func(fd uintptr) {
		added = netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: inner, PeerMTU: uint32(n.mtu), PeerNamespace: netlink.NsFd(int(fd))})
	}); err != nil {
		return err
	}
	if added != nil {
		return fmt.Errorf("make a virtual Ethernet device: %w", added)
	}
	link, err := netlink.LinkByName(attrs.Name)
	if err != nil {
		return err
	}
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"name the owner of", func() error { return netlink.LinkSetAlias(link, owner) }},
		{"keep IPv6 off", func() error { return withoutIPv6(netlink.LinkSetIP6AddrGenMode(link, noAddresses)) }},
		{"give an address to", func() error { return netlink.AddrAdd(link, pairAddress(outerIP)) }},
		{"switch forwarding on for", func() error { return writeSetting(attrs.Name, "forwarding", "1") }},
		{"start", func() error { return netlink.LinkSetUp(link) }},
		{"set up the sandbox's end of", func() error {
			return inNamespace(netns, func() error { return configure(outerIP, innerIP) })
		}},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s the device %s: %w", step.what, attrs.Name, err)
		}
	}
	return nil
}

// configure gives the inner end its address and the way out. It runs on a thread inside the sandbox's network namespace.
func configure(outerIP, innerIP netip.Addr) error {
	link, err := netlink.LinkByName(inner)
	if err != nil {
		return err
	}
	if err := withoutIPv6(netlink.LinkSetIP6AddrGenMode(link, noAddresses)); err != nil {
		return err
	}
	if err := netlink.AddrAdd(link, pairAddress(innerIP)); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return err
	}
	return netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: outerIP.AsSlice()})
}

func pairAddress(a netip.Addr) *netlink.Addr {
	return &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(31, 32)}}
}

// withoutIPv6 takes a kernel without IPv6 for what is wanted.
func withoutIPv6(err error) error {
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return err
}

// removeLink removes the device, which takes its other end with it; one that is gone is no error.
func removeLink(name string) error {
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkDel(link)
	}
	var missing netlink.LinkNotFoundError
	// The sandbox's namespace may be taking it away at the same time.
	if errors.As(err, &missing) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove the device %s: %w", name, err)
	}
	return nil
}

// owned lists our devices, with their owners; a device whose making was interrupted has none.
func owned(prefix string) (map[slot]string, error) {
	all, err := links()
	if err != nil {
		return nil, fmt.Errorf("list the network devices: %w", err)
	}
	out := map[slot]string{}
	for _, l := range all {
		if s, ok := slotOf(prefix, l.Attrs().Name); ok {
			out[s] = l.Attrs().Alias
		}
	}
	return out, nil
}

// inNamespace runs f on a thread inside the network namespace. The thread ends with it: it never serves another goroutine.
func inNamespace(netns *os.File, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The process's first thread would not end. It is held here, so that the next goroutine gets another.
			done <- inNamespace(netns, f)
			runtime.UnlockOSThread()
			return
		}
		raw, err := netns.SyscallConn()
		if err == nil {
			var entered error
			err = raw.Control(func(fd uintptr) { entered = os.NewSyscallError("setns", unix.Setns(int(fd), unix.CLONE_NEWNET)) })
			err = errors.Join(err, entered)
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}
