package http1

import (
	"syscall"
	"time"
)

const (
	// sweepInterval is how exact time limits are, and how often a request under way is looked at.
	sweepInterval = 50 * time.Millisecond
	// watchAfter is how long a request may take before its client is watched. Most are answered sooner.
	watchAfter = 30 * time.Millisecond
)

// past is a deadline that is over: whatever waits for it wakes up.
var past = time.Unix(1, 0)

// sweep holds every connection to its limits as long as there are any; then it closes done.
func (s *Server) sweep(done chan struct{}) {
	defer close(done)
	t := time.NewTicker(sweepInterval)
	defer t.Stop()
	var all []*conn
	for {
		select {
		case <-t.C:
		case <-s.look:
		}
		now := time.Now()
		s.mu.Lock()
		if len(s.conns) == 0 {
			s.swept = nil
			s.mu.Unlock()
			return
		}
		all = all[:0]
		for c := range s.conns {
			all = append(all, c)
		}
		s.mu.Unlock()
		for _, c := range all {
			c.check(now)
		}
		clear(all)
	}
}

// check ends what takes too long and looks for a client that left.
func (c *conn) check(now time.Time) {
	cfg := &c.s.cfg
	state := c.state.Load()
	took := now.Sub(time.Unix(0, c.since.Load()))
	over := func(limit time.Duration) bool { return limit > 0 && took > limit }
	switch state {
	case fresh, reading:
		if over(cfg.HeaderTimeout) {
			c.kick(state)
		}
	case idle:
		if over(cfg.IdleTimeout) {
			c.kick(state)
		}
	case active:
		if took > watchAfter && c.left() {
			c.cancel()
		}
	case finishing:
		if over(cfg.WriteTimeout) {
			_ = c.nc.SetDeadline(past)
		}
	}
}

// kick ends a connection that waits for its client, unless it has gone on meanwhile.
func (c *conn) kick(state int32) {
	if c.state.CompareAndSwap(state, kicked) {
		_ = c.nc.SetReadDeadline(past)
	}
}

// kickWaiting ends a connection that has not sent a whole head.
func (c *conn) kickWaiting() {
	for _, state := range []int32{fresh, idle, reading} {
		c.kick(state)
	}
}

// left reports whether the client has closed its side. What it has sent ahead hides that.
func (c *conn) left() bool {
	gone := false
	err := c.raw.Control(func(fd uintptr) {
		var b [1]byte
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		gone = err == nil && n == 0 || err == syscall.ECONNRESET
	})
	return gone && err == nil
}
