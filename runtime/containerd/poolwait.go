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

// waiter gets the sandbox that a start waits for; nil: none will come.
type waiter chan *spare

// wait returns the next sandbox that is made, and why it was waited for; nil: none came, for that reason. The caller holds p.mu, which it gives back.
func (p *pool) wait(ctx context.Context) (*spare, string) {
	if !p.opened || p.stuck {
		defer p.mu.Unlock()
		return nil, p.empty
	}
	w := make(waiter, 1)
	p.waiters = append(p.waiters, w)
	p.mu.Unlock()
	p.changed()
	limit := time.NewTimer(waitTime)
	defer limit.Stop()
	var s *spare
	select {
	case s = <-w:
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
	return <-w
}

// handLocked gives the sandbox to the start that has waited longest; false: none waits.
func (p *pool) handLocked(s *spare) bool {
	if len(p.waiters) == 0 {
		return false
	}
	p.waiters[0] <- s
	p.waiters = slices.Delete(p.waiters, 0, 1)
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
