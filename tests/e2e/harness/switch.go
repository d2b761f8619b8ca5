//go:build e2e

package harness

import (
	"fmt"
	"net"
	"testing"

	"github.com/vishvananda/netlink"
)

// Switch joins network namespaces of the test's own to one network, as machines in a rack. It ends with the test.
type Switch struct {
	t     testing.TB
	ns    *Network
	ports map[*Network]string
}

// NewSwitch makes a switch that nothing is plugged into.
func NewSwitch(t testing.TB) *Switch {
	t.Helper()
	s := &Switch{t: t, ns: NewNetwork(t), ports: map[*Network]string{}}
	s.ns.Must(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "switch"
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
			return err
		}
		return up("switch")
	})
	return s
}

// Machine makes a network whose one address is 10.77.0.N.
func (s *Switch) Machine(n int) *Network {
	s.t.Helper()
	m := NewNetwork(s.t)
	port := fmt.Sprintf("port%d", n)
	s.ports[m] = port
	s.ns.Must(func() error {
		bridge, err := netlink.LinkByName("switch")
		if err != nil {
			return err
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MasterIndex = port, bridge.Attrs().Index
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(m.FD())}); err != nil {
			return err
		}
		return up(port)
	})
	m.Must(func() error {
		if err := up("lo"); err != nil {
			return err
		}
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(MachineAddr(n)), Mask: net.CIDRMask(24, 32)}}
		if err := netlink.AddrAdd(l, addr); err != nil {
			return err
		}
		return netlink.LinkSetUp(l)
	})
	return m
}

// MachineAddr is the address of the machine with a number.
func MachineAddr(n int) string { return fmt.Sprintf("10.77.0.%d", n) }

// Cut pulls a machine's plug: packets to it and from it are lost.
func (s *Switch) Cut(m *Network) {
	s.t.Helper()
	s.ns.Must(func() error {
		l, err := netlink.LinkByName(s.ports[m])
		if err != nil {
			return err
		}
		return netlink.LinkSetDown(l)
	})
}

// Heal puts it back.
func (s *Switch) Heal(m *Network) {
	s.t.Helper()
	s.ns.Must(func() error { return up(s.ports[m]) })
}

// Part loses the packets between two machines, of the given numbers, in both directions; others hear both of them.
func (s *Switch) Part(a *Network, numberA int, b *Network, numberB int) {
	s.t.Helper()
	neighbour(a, numberB, netlink.NeighSet)
	neighbour(b, numberA, netlink.NeighSet)
}

// Join takes that back.
func (s *Switch) Join(a *Network, numberA int, b *Network, numberB int) {
	s.t.Helper()
	neighbour(a, numberB, netlink.NeighDel)
	neighbour(b, numberA, netlink.NeighDel)
}

// neighbour changes who a machine takes for the one with a number: the hardware address is nobody's.
func neighbour(of *Network, number int, change func(*netlink.Neigh) error) {
	of.t.Helper()
	of.Must(func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return change(&netlink.Neigh{LinkIndex: l.Attrs().Index, State: netlink.NUD_PERMANENT, IP: net.ParseIP(MachineAddr(number)), HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 0xff}})
	})
}

func up(name string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return netlink.LinkSetUp(l)
}
