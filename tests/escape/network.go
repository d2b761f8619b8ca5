//go:build linux

package escape

import (
	"net"
	"net/netip"
	"net/url"
	"strings"
	"testing"
)

// network: neither the node's listeners nor other addresses are reached.
func (s *suite) network(t *testing.T) {
	metadata, metadata6, private := netip.MustParseAddr("169.254.169.254"), netip.MustParseAddr("fd00:ec2::254"), netip.MustParseAddr("10.0.0.1")
	own(t, metadata, metadata6, private, netip.MustParseAddr("100.100.100.200"))
	p := s.hold(t, s.spec())
	try := func(network, addr, refusal string) {
		t.Helper()
		args := "network=" + network + "&addr=" + url.QueryEscape(addr)
		s.refused(t, p, "connect", args, refusal)
		s.succeeds(t, "connect", args)
	}
	away := "ENETUNREACH"
	if s.Internet != nil {
		away = "EHOSTUNREACH"
		s.beyond(t, p, try)
	}
	for _, c := range []struct{ host, refusal string }{
		{"127.0.0.1", "ECONNREFUSED"}, {"[::1]", "ECONNREFUSED"}, {"169.254.169.254", away}, {"100.100.100.200", away},
		{"10.0.0.1", away}, {"[fd00:ec2::254]", "ENETUNREACH"},
	} {
		// The ports of the metadata service, of the gateway, of the control API and of NATS.
		for _, port := range []string{"80", "8081", "4222"} {
			l, err := net.Listen("tcp", c.host+":"+port)
			if err != nil {
				t.Fatal(err)
			}
			try("tcp", c.host+":"+port, c.refusal)
			l.Close()
		}
	}
	abstract, err := net.Listen("unix", "@tatami-escape-node")
	if err != nil {
		t.Fatal(err)
	}
	defer abstract.Close()
	try("unix", "@tatami-escape-node", "ECONNREFUSED")
	for _, path := range s.Sockets {
		try("unix", path, "ENOENT")
		for _, way := range ways(path) {
			s.refused(t, p, "connect", "network=unix&addr="+url.QueryEscape(way), "ENOENT|EINVAL")
		}
	}
}

// beyond: what is the internet's is reached, and nothing else: no network of others, none of the node's addresses and no other instance.
func (s *suite) beyond(t *testing.T, p *prisoner, try func(network, addr, refusal string)) {
	t.Helper()
	if got := p.try(t, "connect", "network=tcp&addr="+s.Internet.Open.String()+":80"); got.Errno != "" {
		t.Errorf("with egress the internet is not reached: %+v", got)
	}
	for _, a := range s.Internet.Closed {
		try("tcp", a.String()+":80", "EHOSTUNREACH")
	}
	l, err := net.Listen("tcp", ":8081")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	neighbour := s.hold(t, s.spec())
	inner := strings.Fields(neighbour.try(t, "addresses", "").Detail)
	outer := strings.Fields(s.control(t, "addresses", "").Detail)
	for _, addr := range outer {
		try("tcp", addr+":8081", "EHOSTUNREACH")
	}
	if len(inner) != 1 || len(outer) < 3 {
		t.Errorf("the neighbour's addresses are %v, the node's %v", inner, outer)
	}
	for _, addr := range inner {
		args := "network=tcp&addr=" + addr + ":8080"
		s.refused(t, p, "connect", args, "EHOSTUNREACH")
		if got := neighbour.try(t, "connect", args); got.Errno != "" {
			t.Errorf("the neighbour does not serve: %+v", got)
		}
	}
}
