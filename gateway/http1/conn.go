package http1

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/tatami-faas/tatami/internal/socket"
)

// The states of a connection.
const (
	// fresh: it has sent nothing yet. idle: it has sent nothing since the answer before.
	fresh int32 = iota
	idle
	// reading: a part of a head has come.
	reading
	// active: a request is served. finishing: its handler has returned.
	active
	finishing
	// kicked: its time is over. dismissed: it was idle, and its time is over unless a request has come in that moment.
	kicked
	dismissed
)

// conn is a connection of which nothing unusual has come yet.
type conn struct {
	s    *Server
	nc   net.Conn
	sock *socket.Conn
	raw  syscall.RawConn
	note func(http.ConnState)
	// state says what since is about, in nanoseconds since the server began; active, it is when the request's head began to come.
	state atomic.Int32
	since atomic.Int64
	// ends has a dismissal be whole before it is taken back.
	ends sync.Mutex
	// timed says that somebody has put a deadline on the connection.
	timed  atomic.Bool
	cancel context.CancelFunc
	// watch is told when the requests' context ends, until unwatch.
	watch   watch
	unwatch func() bool
	// blank is a request with what all of them have in common.
	blank *http.Request

	// between says that a request was answered and no other one has begun, posted that its method was POST.
	between, posted bool
	// work is nil while nothing has come.
	work *work
	// fill is tryRead, got and err what it found.
	fill func(uintptr) bool
	got  int
	err  syscall.Errno
}

// newConn returns nil for a connection of which the socket cannot be had.
func newConn(s *Server, nc net.Conn) *conn {
	sock := socket.New(nc)
	if sock == nil {
		return nil
	}
	c := &conn{s: s, nc: nc, sock: sock, raw: sock.Raw(), note: s.cfg.Note(nc)}
	c.fill = c.tryRead
	ctx, cancel := context.WithCancel(s.cfg.Base)
	c.cancel, c.unwatch = cancel, context.AfterFunc(ctx, c.watch.end)
	c.blank = (&http.Request{Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, RemoteAddr: nc.RemoteAddr().String()}).WithContext(ctx)
	c.since.Store(s.uptime())
	return c
}

// serve answers one request after the other until something ends that.
func (c *conn) serve() {
	closing := true
	defer func() {
		c.unwatch()
		c.cancel()
		if c.work != nil {
			c.s.works.put(c.work)
			c.work = nil
		}
		c.s.remove(c)
		if closing {
			c.note(http.StateClosed)
			_ = c.nc.Close()
		}
	}()
	for {
		switch c.next() {
		case incomplete:
			return
		case unusual:
			said := append([]byte(nil), c.work.unread()...)
			closing = !c.s.handover.give(&replayed{Conn: c.nc, said: said})
			return
		case ordinary:
			if !c.respond() {
				return
			}
		}
	}
}

// next reads up to the end of the next head. Incomplete is the end of the connection.
func (c *conn) next() verdict {
	for {
		w := c.work
		if w != nil && w.at < w.end && c.state.Load() != reading && !c.pass(reading) {
			return incomplete
		}
		if w != nil && !c.tooLittle() && w.at < w.end {
			w.reset(c.blank)
			n, v := w.head(w.unread())
			switch {
			case v == ordinary && n <= c.s.cfg.MaxHeader && (c.s.cfg.Takes == nil || c.s.cfg.Takes(w.req.Host, w.req.RequestURI)):
				w.at += n
				return ordinary
			case v != incomplete || w.end-w.at >= c.s.cfg.MaxHeader:
				return c.unusual()
			}
			w.compact()
		}
		if err := c.raw.Read(c.fill); err != nil && c.recall() {
			continue
		} else if err != nil || c.err != 0 {
			return incomplete
		}
		if c.got == 0 {
			if !c.tooLittle() && c.work.at < c.work.end {
				// It ended in the middle of a head.
				return c.unusual()
			}
			return incomplete
		}
	}
}

// leastHead is how much of another request must come before it is one. Less is taken for the end of the one before: old clients put an empty
// line behind the body of a POST.
const leastHead = 4

// tooLittle reports whether too little has come behind an answered request, and leaves such a line out.
func (c *conn) tooLittle() bool {
	w := c.work
	if !c.between {
		return false
	}
	if w.end-w.at < leastHead {
		return true
	}
	if c.posted {
		for end := w.at + leastHead; w.at < end && (w.in[w.at] == '\r' || w.in[w.at] == '\n'); {
			w.at++
		}
	}
	c.between = false
	return false
}

// unusual is what a connection becomes that net/http takes over.
func (c *conn) unusual() verdict {
	if !c.pass(active) {
		return incomplete
	}
	return unusual
}

// pass goes on to another state, from now on; false for a connection whose time was over before.
func (c *conn) pass(to int32) bool {
	c.since.Store(c.s.uptime())
	return c.become(to)
}

// become is pass without a look at the clock.
func (c *conn) become(to int32) bool {
	for {
		from := c.state.Load()
		switch from {
		case kicked:
			return false
		case dismissed:
			c.takeBack()
			continue
		}
		if c.state.CompareAndSwap(from, to) {
			return true
		}
	}
}

// tryRead reads what is there; false where nothing is. A connection that waits for its client needs no buffer.
func (c *conn) tryRead(fd uintptr) bool {
	w := c.work
	if w == nil {
		w = c.s.works.get()
	} else if w.at == w.end {
		w.at, w.end = 0, 0
	}
	n, err := socket.ReadNow(fd, w.in[w.end:])
	if err == syscall.EAGAIN {
		if w.end == 0 {
			c.work = nil
			c.s.works.put(w)
		}
		return false
	}
	c.s.cfg.Awake.Touch()
	c.work, c.got, c.err = w, n, err
	w.end += n
	return true
}

// respond serves the request that was read and reports whether the connection goes on.
func (c *conn) respond() bool {
	if !c.become(active) {
		return false
	}
	c.note(http.StateActive)
	w := c.work
	a := &w.answer
	a.reset(c, w)
	if w.req.ContentLength > 0 {
		w.body = body{c: c, left: w.req.ContentLength}
		w.req.Body = &w.body
	} else {
		w.req.Body = http.NoBody
	}
	whole := c.handle(a, &w.req)
	if !c.pass(finishing) || !whole || !a.finish() {
		return false
	}
	c.between, c.posted = true, w.req.Method == http.MethodPost
	if c.timed.Load() {
		c.timed.Store(false)
		_ = c.nc.SetDeadline(time.Time{})
	}
	if !c.pass(idle) {
		return false
	}
	c.note(http.StateIdle)
	return true
}

// handle calls the handler; false where it gave up.
func (c *conn) handle(a *answer, r *http.Request) (whole bool) {
	defer func() {
		if whole {
			return
		}
		if err := recover(); err != nil && err != http.ErrAbortHandler { //nolint:errorlint // a panic's value is compared as net/http does it
			c.s.log.Error("a handler panicked", "remote", r.RemoteAddr, "panic", err, "stack", string(debug.Stack()))
		}
	}()
	c.s.handler.ServeHTTP(a, r)
	return true
}

// SetReadDeadline holds until the answer is out.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.timed.Store(true)
	return c.nc.SetReadDeadline(t)
}

// SetWriteDeadline holds until the answer is out.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.timed.Store(true)
	return c.nc.SetWriteDeadline(t)
}

// lingerTime is how long a client may go on sending after an answer that ends its connection.
const lingerTime = 500 * time.Millisecond

// linger ends the side that writes and reads on for a while: a connection that is closed before all was read takes the answer with it.
func (c *conn) linger() {
	if cw, ok := c.nc.(interface{ CloseWrite() error }); !ok || cw.CloseWrite() != nil {
		return
	}
	_ = c.nc.SetReadDeadline(time.Now().Add(lingerTime))
	if _, err := io.Copy(io.Discard, c.nc); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		c.s.log.Debug("a client went on after its answer", "err", err)
	}
}
