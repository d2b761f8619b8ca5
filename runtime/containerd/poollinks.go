//go:build linux

package containerd

import (
	"slices"
	"time"
)

// noLink is why a start with egress had to have its link made.
const noLink = "no link to the internet was ready, so that one was made"

// links is the part of a pool whose sandboxes have a link to the internet already. There is none until a function with egress is started: until then
// nothing of the host's network is touched. A sandbox with a link is never given to a function without egress.
type links struct {
	bounds poolBounds
	// open says that the part is to be filled.
	open   bool
	demand demand
	// making is how many are being made.
	making int
	// pause is how long none is made after one could not get its link, and retry until when.
	pause time.Duration
	retry time.Time
}

// short reports whether one is to be made, where so many more are wanted than wait.
func (l *links) short(now time.Time, wanted int) bool {
	return wanted > l.making && !now.Before(l.retry)
}

// sizesLocked are how many sandboxes are to wait without a link, and how many with one: both together are no more than the pool may hold.
func (p *pool) sizesLocked(now time.Time) (plain, linked int) {
	if l := &p.links; l.open {
		linked = l.bounds.size(l.demand.burst(now))
	}
	return min(p.bounds.ceiling-linked, p.bounds.size(p.demand.burst(now))), linked
}

// asked notes that a start asks for a sandbox of the pool's.
func (p *pool) asked(egress bool) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !egress {
		p.demand.started(now)
		return
	}
	p.links.open = true
	p.links.demand.started(now)
}

// openLinks has the part with links filled before a start asks for it.
func (p *pool) openLinks() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.links.open = true
}

// idleLocked is how many sandboxes wait with a link, or without.
func (p *pool) idleLocked(linked bool) (n int) {
	for _, s := range p.idle {
		if s.linked == linked {
			n++
		}
	}
	return n
}

// findLocked is the place of the sandbox that a start is to get; -1: there is none for it.
func (p *pool) findLocked(egress bool) int {
	if i := slices.IndexFunc(p.idle, func(s *spare) bool { return s.linked == egress }); i >= 0 || !egress {
		return i
	}
	return min(0, len(p.idle)-1)
}

// pluckLocked takes the newest sandbox without a link out of those that wait; nil: there is none.
func (p *pool) pluckLocked() (s *spare) {
	for i := len(p.idle) - 1; i >= 0; i-- {
		if s = p.idle[i]; !s.linked {
			p.idle = slices.Delete(p.idle, i, i+1)
			return s
		}
	}
	return nil
}

// makingLocked is the count of the sandboxes that are being made with a link, or without.
func (p *pool) makingLocked(linked bool) *int {
	if linked {
		return &p.links.making
	}
	return &p.making
}

// link gives a new sandbox its link. One that gets none waits like those without.
func (p *pool) link(s *spare) {
	err := p.d.egress.Plug(s.box.sid, s.box.netns)
	s.linked = err == nil
	p.mu.Lock()
	l := &p.links
	if l.pause = min(max(firstRetry, 2*l.pause), lastRetry); err == nil {
		l.pause = 0
	}
	l.retry = time.Now().Add(l.pause)
	p.mu.Unlock()
	if err != nil {
		p.d.log.Warn("no link to the internet can be made ahead", "err", err)
	}
}

// checkLink finds out whether the link of a sandbox that was taken is still there. One that somebody has removed is made again at the start.
func (d *Driver) checkLink(s *spare) {
	if !s.linked || d.egress.Holds(s.box.sid) {
		return
	}
	s.linked = false
	if err := d.egress.Unplug(s.box.sid); err != nil {
		d.log.Warn("a link that is gone is not forgotten", "inst", s.box.sid, "err", err)
	}
}
