package http1_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/gateway/http1"
)

// heldConn is a connection whose second read begins when something has come, and takes it only once the server has looked at the connection,
// or has ended its patience with it.
type heldConn struct {
	*net.TCPConn
	came, looked chan struct{}
	look         sync.Once
}

func (c *heldConn) SyscallConn() (syscall.RawConn, error) {
	raw, err := c.TCPConn.SyscallConn()
	return &heldRaw{RawConn: raw, c: c}, err
}

func (c *heldConn) seen() { c.look.Do(func() { close(c.looked) }) }

// SetReadDeadline is how the server ends a connection that waits for its client.
func (c *heldConn) SetReadDeadline(t time.Time) error {
	defer c.seen()
	return c.TCPConn.SetReadDeadline(t)
}

type heldRaw struct {
	syscall.RawConn
	c     *heldConn
	reads int
}

// Control is how the server looks at a connection that somebody reads.
func (r *heldRaw) Control(do func(uintptr)) error {
	select {
	case <-r.c.came:
		defer r.c.seen()
	default:
	}
	return r.RawConn.Control(do)
}

func (r *heldRaw) Read(try func(uintptr) bool) error {
	if r.reads++; r.reads == 2 {
		err := r.RawConn.Read(func(fd uintptr) bool {
			_, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
			return err != syscall.EAGAIN
		})
		if err != nil {
			return err
		}
		close(r.c.came)
		<-r.c.looked
	}
	return r.RawConn.Read(try)
}

// holding is a listener of connections that are held.
type holding struct {
	net.Listener
	conns chan *heldConn
}

func (h *holding) Accept() (net.Conn, error) {
	nc, err := h.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &heldConn{TCPConn: nc.(*net.TCPConn), came: make(chan struct{}), looked: make(chan struct{})}
	h.conns <- c
	return c, nil
}

// A request that has come when the server ends, and that nobody has read by then, is answered, whoever answers it.
func TestWhatComesAsTheServerEnds(t *testing.T) {
	t.Parallel()
	for name, request := range map[string]string{
		"here":      "GET /fn/y" + tail,
		"elsewhere": "POST /fn/y HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := &holding{conns: make(chan *heldConn, 1)}
			s, addr := startOn(t, http1.Config{}, hello, func(l net.Listener) net.Listener {
				h.Listener = l
				return h
			})
			client, br := dial(t, addr, "GET /fn/x"+tail)
			held := <-h.conns
			answer(t, br)
			if _, err := io.WriteString(client, request); err != nil {
				t.Fatal(err)
			}
			await(t, held.came)
			if err := s.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
			if resp, body := answer(t, br); !resp.Close || body != "hello" {
				t.Errorf("close %t %q", resp.Close, body)
			}
			ended(t, br)
		})
	}
}

// lateConn is a connection whose client sends another request in the moment in which the server ends it: before that is noticed, or after.
type lateConn struct {
	*net.TCPConn
	noticed bool
	send    func()
	once    sync.Once
	reads   int
	// read is closed when the second request has been read.
	read chan struct{}
}

// SetReadDeadline is how the server ends a connection that waits for its client.
func (c *lateConn) SetReadDeadline(t time.Time) error {
	if !c.noticed && !t.IsZero() {
		c.once.Do(func() {
			c.send()
			<-c.read
		})
	}
	return c.TCPConn.SetReadDeadline(t)
}

func (c *lateConn) SyscallConn() (syscall.RawConn, error) {
	raw, err := c.TCPConn.SyscallConn()
	return lateRaw{raw, c}, err
}

type lateRaw struct {
	syscall.RawConn
	c *lateConn
}

func (r lateRaw) Read(try func(uintptr) bool) error {
	err := r.RawConn.Read(try)
	switch {
	case err == nil:
		if r.c.reads++; r.c.reads == 2 {
			close(r.c.read)
		}
	case r.c.noticed:
		r.c.once.Do(func() {
			r.c.send()
			_ = r.c.TCPConn.SetReadDeadline(time.Time{})
			_ = r.RawConn.Read(func(fd uintptr) bool {
				_, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
				return err != syscall.EAGAIN
			})
		})
	}
	return err
}

type lateListener struct {
	net.Listener
	wrap func(*net.TCPConn) net.Conn
}

func (l lateListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.wrap(c.(*net.TCPConn)), nil
}

// A request that comes in the moment in which its idle connection is ended is answered: its client takes it for sent.
func TestWhatComesAsItsConnectionEnds(t *testing.T) {
	t.Parallel()
	for _, noticed := range []bool{false, true} {
		for _, ending := range []bool{false, true} {
			t.Run(fmt.Sprintf("noticed %t, ending %t", noticed, ending), func(t *testing.T) {
				t.Parallel()
				var client net.Conn
				ready, cfg := make(chan struct{}), http1.Config{}
				if !ending {
					cfg.IdleTimeout = time.Millisecond
				}
				s, addr := startOn(t, cfg, hello, func(l net.Listener) net.Listener {
					return lateListener{l, func(c *net.TCPConn) net.Conn {
						return &lateConn{TCPConn: c, noticed: noticed, read: make(chan struct{}), send: func() {
							<-ready
							if _, err := io.WriteString(client, "POST /fn/y HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody"); err != nil {
								t.Error(err)
							}
						}}
					}}
				})
				var br *bufio.Reader
				client, br = dial(t, addr, "GET /fn/x"+tail)
				close(ready)
				answer(t, br)
				if ending {
					if err := s.Shutdown(t.Context()); err != nil {
						t.Error(err)
					}
				}
				if resp, body := answer(t, br); resp.Close != ending || body != "hello" {
					t.Errorf("close %t %q", resp.Close, body)
				}
			})
		}
	}
}

// slowToTake is a listener that takes connections only once it takes part in no new ones, or has been closed.
type slowToTake struct {
	*net.TCPListener
	settled, taken chan struct{}
	settle, take   sync.Once
}

func (l *slowToTake) Accept() (net.Conn, error) {
	<-l.settled
	c, err := l.TCPListener.Accept()
	l.take.Do(func() { close(l.taken) })
	return c, err
}

func (l *slowToTake) Close() error {
	defer l.settle.Do(func() { close(l.settled) })
	return l.TCPListener.Close()
}

func (l *slowToTake) SyscallConn() (syscall.RawConn, error) {
	raw, err := l.TCPListener.SyscallConn()
	return slowRaw{raw, l}, err
}

type slowRaw struct {
	syscall.RawConn
	l *slowToTake
}

// Control settles the listener the first time.
func (r slowRaw) Control(do func(uintptr)) error {
	err := r.RawConn.Control(do)
	r.l.settle.Do(func() { close(r.l.settled) })
	<-r.l.taken
	return err
}

// A connection that has been made when the server ends, and that it has not taken by then, is answered.
func TestWhoComesAsTheServerEnds(t *testing.T) {
	t.Parallel()
	s, addr := startOn(t, http1.Config{}, hello, func(l net.Listener) net.Listener {
		return &slowToTake{TCPListener: l.(*net.TCPListener), settled: make(chan struct{}), taken: make(chan struct{})}
	})
	_, br := dial(t, addr, "GET /fn/x"+tail)
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if _, body := answer(t, br); body != "hello" {
		t.Errorf("%q", body)
	}
	ended(t, br)
}
