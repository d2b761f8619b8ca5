//go:build e2e

package e2e

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/tatami-faas/tatami/tests/e2e/harness"
)

// The addresses of the world that outsideWorld makes. All of them exist in its network namespaces only.
const (
	hostAddr     = "203.0.113.2"
	gatewayAddr  = "203.0.113.1"
	internetAddr = "198.51.100.1"
	internetName = "internet.test"
	metadataAddr = "169.254.169.254"
	privateAddr  = "10.77.0.1"
)

// world is a machine with one way out: to a neighbour that owns everything else there is.
type world struct {
	host, outside *harness.Network

	mu sync.Mutex
	// from is where the last connection to the outside came from.
	from string
}

// outsideWorld makes a namespace for a server, and another that answers HTTP on port 80 of the addresses, and DNS for the one name.
func outsideWorld(t *testing.T) *world {
	t.Helper()
	w := &world{host: harness.NewNetwork(t), outside: harness.NewNetwork(t)}
	w.host.Must(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "up0"
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "down0", PeerNamespace: netlink.NsFd(w.outside.FD())})
	})
	w.outside.Must(func() error {
		return device("down0", gatewayAddr+"/24")
	})
	w.outside.Must(func() error {
		return device("lo", internetAddr+"/32", metadataAddr+"/32", privateAddr+"/32")
	})
	w.host.Must(func() error { return device("lo") })
	w.host.Must(func() error { return device("up0", hostAddr+"/24") })
	w.host.Must(func() error {
		return netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(gatewayAddr)})
	})
	w.serve(t, w.outside, ":80")
	// What the server's own machine serves must not be reached from its functions.
	w.serve(t, w.host, ":9000")
	w.names(t)
	return w
}

// device gives a device addresses and starts it.
func device(name string, addrs ...string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		parsed, err := netlink.ParseAddr(a)
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(l, parsed); err != nil {
			return err
		}
	}
	return netlink.LinkSetUp(l)
}

// route leads an address over a neighbour.
func route(to, over string) error {
	dst, err := netlink.ParseIPNet(to)
	if err != nil {
		return err
	}
	return netlink.RouteReplace(&netlink.Route{Dst: dst, Gw: net.ParseIP(over)})
}

func (w *world) serve(t *testing.T, in *harness.Network, addr string) {
	var l net.Listener
	in.Must(func() (err error) {
		l, err = net.Listen("tcp4", addr)
		return err
	})
	srv := &http.Server{Handler: http.NotFoundHandler(), ConnState: func(c net.Conn, state http.ConnState) {
		if state == http.StateNew && in == w.outside {
			host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
			w.mu.Lock()
			w.from = host
			w.mu.Unlock()
		}
	}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l)
	}()
	t.Cleanup(func() {
		srv.Close()
		<-done
	})
}

func (w *world) lastSeen() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.from
}

// names answers DNS queries for internetName.
func (w *world) names(t *testing.T) {
	var pc net.PacketConn
	w.outside.Must(func() (err error) {
		pc, err = net.ListenPacket("udp4", internetAddr+":53")
		return err
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			if out, err := answer(buf[:n]); err == nil {
				_, _ = pc.WriteTo(out, from)
			}
		}
	}()
	t.Cleanup(func() {
		pc.Close()
		<-done
	})
}

func answer(query []byte) ([]byte, error) {
	var p dnsmessage.Parser
	head, err := p.Start(query)
	if err != nil {
		return nil, err
	}
	q, err := p.Question()
	if err != nil {
		return nil, err
	}
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: head.ID, Response: true, RecursionAvailable: true}, Questions: []dnsmessage.Question{q}}
	switch {
	case q.Name.String() != internetName+".":
		m.RCode = dnsmessage.RCodeNameError
	case q.Type == dnsmessage.TypeA:
		m.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1},
			Body:   &dnsmessage.AResource{A: netip.MustParseAddr(internetAddr).As4()},
		}}
	}
	return m.Pack()
}

// reaches reports whether the namespace itself gets to an address.
func reaches(n *harness.Network, addr string) bool {
	// What is dropped answers nothing.
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	c, err := n.Dial(ctx, "tcp", addr)
	if err == nil {
		c.Close()
	}
	return err == nil
}

// innerAddrs are the addresses of the functions that have a link.
func (w *world) innerAddrs() (out []string) {
	w.host.Must(func() (err error) {
		for range 20 {
			// Devices come and go beside it: what is broken off for that is begun again.
			if out, err = innerAddrsHere(); !errors.Is(err, netlink.ErrDumpInterrupted) {
				break
			}
		}
		return err
	})
	return out
}

func innerAddrsHere() (out []string, err error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		if !strings.HasPrefix(l.Attrs().Name, "tt") {
			continue
		}
		addrs, err := netlink.AddrList(l, netlink.FAMILY_V4)
		if err != nil {
			return nil, err
		}
		for _, a := range addrs {
			ip, _ := netip.AddrFromSlice(a.IP.To4())
			out = append(out, ip.Next().String())
		}
	}
	return out, nil
}

// operatorTable stands for the rules that the machine has already.
func (w *world) operatorTable() {
	w.host.Must(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		t := c.AddTable(&nftables.Table{Name: "operator", Family: nftables.TableFamilyINet})
		ch := c.AddChain(&nftables.Chain{Name: "input", Table: t})
		c.AddRule(&nftables.Rule{Table: t, Chain: ch})
		return c.Flush()
	})
}

// tables lists the packet filter's tables.
func (w *world) tables() (out []string) {
	w.host.Must(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		list, err := c.ListTables()
		for _, t := range list {
			out = append(out, t.Name)
		}
		return err
	})
	return out
}
