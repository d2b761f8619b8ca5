package main

import (
	"context"
	"crypto/tls"
	"net"
	"sync"

	"github.com/tatami-faas/tatami/internal/socket"
)

// hop passes bytes on to an instance and back without a look at them: about the least that a process in Go costs which stands in between. It uses its
// sockets as the gateway does, so that what is left beside it is the gateway's own part.
type hop struct {
	listener net.Listener
	dial     func(context.Context, string, string) (net.Conn, error)
	tls      *tls.Config
	passing  sync.WaitGroup
}

// hopPiece is how much a hop passes on at once. What is asked of the instance and what it answers come in one piece each.
const hopPiece = 4 << 10

func startHop(pid int) (*hop, error) {
	dial, err := dialerInto(pid)
	if err != nil {
		return nil, err
	}
	return startHopBy(dial, nil)
}

// startHopBy begins a hop to where dial connects; config, where it is not nil, is for TLS with its clients.
func startHopBy(dial func(context.Context, string, string) (net.Conn, error), config *tls.Config) (*hop, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	h := &hop{listener: l, dial: dial, tls: config}
	h.passing.Go(h.accept)
	return h, nil
}

func (h *hop) accept() {
	for {
		client, err := h.listener.Accept()
		if err != nil {
			return
		}
		h.passing.Go(func() { h.pass(client) })
	}
}

// pass passes requests and answers on in turn, until either side ends.
func (h *hop) pass(client net.Conn) {
	defer client.Close()
	instance, err := h.dial(context.Background(), "tcp", "")
	if err != nil {
		return
	}
	defer instance.Close()
	from, to := overSocket(client), overSocket(instance)
	if h.tls != nil {
		from = tls.Server(from, h.tls)
	}
	buf := make([]byte, hopPiece)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
		from, to = to, from
	}
}

// overSocket has the connection use its socket as the gateway does; one of TLS does so already.
func overSocket(nc net.Conn) net.Conn {
	if s := socket.New(nc); s != nil {
		return s
	}
	return nc
}

// stop takes no more connections, and waits for the clients to end those that are there.
func (h *hop) stop() {
	_ = h.listener.Close()
	h.passing.Wait()
}
