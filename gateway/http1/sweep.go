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
	// lastWords is how long a connection that has been made, was answered, or has sent a part of a head, may take for what follows once the server ends.
	lastWords = 500 * time.Millisecond
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
	took := now.Sub(c.s.began) - time.Duration(c.since.Load())
	over := func(limit time.Duration) bool { return limit > 0 && took > limit }
	switch state {
	case fresh, reading:
		if over(cfg.HeaderTimeout) || c.s.ending.Load() && took > lastWords {
			c.kick(state)
		}
	case idle:
		if over(cfg.IdleTimeout) || c.s.ending.Load() && took > lastWords {
			c.dismiss()
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

// dismiss has a connection that waits for its client end, unless a request has come by then.
func (c *conn) dismiss() {
	c.ends.Lock()
	defer c.ends.Unlock()
	if c.state.CompareAndSwap(idle, dismissed) {
		_ = c.nc.SetReadDeadline(past)
	}
}

// recall reports, in the last moment before a connection that was dismissed is closed, that a request has come after all: its client takes that for sent.
func (c *conn) recall() bool {
	if c.state.Load() != dismissed || c.come() < leastHead {
		return false
	}
	c.takeBack()
	return true
}

// takeBack makes a connection that was dismissed one that waits for its client.
func (c *conn) takeBack() {
	c.ends.Lock()
	defer c.ends.Unlock()
	if c.state.CompareAndSwap(dismissed, idle) {
		_ = c.nc.SetReadDeadline(time.Time{})
	}
}

// left reports whether the client has closed its side. What it has sent ahead hides that.
func (c *conn) left() bool { return c.come() == gone }

// gone is what has come of a connection that its client has closed, if nothing is left to read.
const gone = -1

// come is how much has come and was not read: none, gone, or up to leastHead.
func (c *conn) come() (n int) {
	err := c.raw.Control(func(fd uintptr) {
		var b [leastHead]byte
		var err error
		n, _, err = syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		switch {
		case err == nil && n == 0 || err == syscall.ECONNRESET:
			n = gone
		case err != nil:
			n = 0
		}
	})
	if err != nil {
		return 0
	}
	return n
}
