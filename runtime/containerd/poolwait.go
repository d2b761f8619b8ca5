//go:build linux

package containerd

import (
	"context"
	"slices"
	"time"
)

// waitTime is how long a start waits for a sandbox at most. To have the OCI runtime make one takes longer and ten times the processor time: many
// that did so at once would hold each other up, and the filling of the pool.
const waitTime = 3 * time.Second

// waiter is a start that waits; got gets its sandbox, nil: none will come. One with a link is for a start with egress only.
type waiter struct {
	got    chan *spare
	egress bool
}

// wait returns the next sandbox that is made, and why it was waited for; nil: none came, for that reason. The caller holds p.mu, which it gives back.
func (p *pool) wait(ctx context.Context, egress bool) (*spare, string) {
	if !p.opened || p.stuck {
		defer p.mu.Unlock()
		return nil, p.empty
	}
	w := waiter{make(chan *spare, 1), egress}
	p.waiters = append(p.waiters, w)
	p.mu.Unlock()
	p.changed()
	limit := time.NewTimer(waitTime)
	defer limit.Stop()
	var s *spare
	select {
	case s = <-w.got:
	case <-ctx.Done():
		s = p.giveUpWaiting(w)
	case <-limit.C:
		s = p.giveUpWaiting(w)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if s != nil {
		return s, poolEmpty + ", so that one was waited for"
	}
	return nil, p.empty
}

// giveUpWaiting returns what came at the last moment.
func (p *pool) giveUpWaiting(w waiter) *spare {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(p.waiters, w); i >= 0 {
		p.waiters = slices.Delete(p.waiters, i, i+1)
		return nil
	}
	return <-w.got
}

// handLocked gives the sandbox to the start that has waited longest for one like it; false: none waits.
func (p *pool) handLocked(s *spare) bool {
	i := slices.IndexFunc(p.waiters, func(w waiter) bool { return s == nil || w.egress || !s.linked })
	if i < 0 {
		return false
	}
	p.waiters[i].got <- s
	p.waiters = slices.Delete(p.waiters, i, i+1)
	return true
}

// dismissLocked tells all that wait that none will come.
func (p *pool) dismissLocked() {
	for p.handLocked(nil) {
	}
}

// fails says why no sandbox can be made now. Nobody waits for one until one is made again.
func (p *pool) fails(why string) {
	p.mu.Lock()
	p.empty, p.stuck = why, true
	p.dismissLocked()
	p.mu.Unlock()
}
