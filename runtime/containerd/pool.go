//go:build linux

package containerd

import (
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tatami-faas/tatami/runtime/sandbox"
)

const (
	// makers is how many waiting sandboxes are made at once, drainers how many are removed at once.
	makers   = 2
	drainers = 4
	// settleTime is how long after a start its function has the processors for itself at most, where it does not listen before: a language's
	// runtime takes its time. One that listens keeps them for boostRest.
	settleTime = 200 * time.Millisecond
	// yieldTime is how long starts can keep the pool from being filled, while a lowShare of what it shall hold is left.
	yieldTime = time.Second
	lowShare  = 16
	// firstRetry and lastRetry are the pauses after a sandbox could not be made.
	firstRetry = 100 * time.Millisecond
	lastRetry  = 30 * time.Second
	// trimEvery is how often a pool that has become too large gives up sandboxes.
	trimEvery = 10 * time.Second
)

// pool keeps sandboxes made ahead. Each is used once. What becomes of it afterwards is the box's that took it.
type pool struct {
	d      *Driver
	bounds poolBounds
	// mapped says that its sandboxes have a user namespace.
	mapped bool
	// wake tells the goroutine that refills that something has changed.
	wake   chan struct{}
	tasks  sync.WaitGroup
	cancel context.CancelFunc

	mu     sync.Mutex
	opened bool
	idle   []*spare
	links  links
	// waiters are the starts that wait for a sandbox to be made, longest first: only where none is idle.
	waiters []waiter
	// empty says why there is none while there is none; stuck, that none can be made now.
	empty string
	stuck bool
	// starts is how many starts are under way, or were until settleTime ago.
	starts int
	// making is how many sandboxes are being made, those of links left out.
	making int
	counts map[StartPath]uint64
	demand demand
	yield  yield
}

func newPool(d *Driver, bounds poolBounds) *pool {
	return &pool{d: d, bounds: bounds, wake: make(chan struct{}, makers), empty: poolEmpty, counts: map[StartPath]uint64{}}
}

// poolEmpty is why a start has to wait for its sandbox.
const poolEmpty = "the pool is empty"

// StartPath is a way in which sandboxes were started, and the kind of reason why it was not the fastest: no-pool, pool-empty, not-poolable,
// gvisor, attach-failed, no-link. An attach with pool-empty waited for its sandbox to be made, one with no-link for its link to the internet.
type StartPath struct{ Path, Reason string }

// PoolState is what the pools hold now, and what starts there were.
type PoolState struct {
	// Waiting is how many sandboxes wait, Wanted how many shall.
	Waiting, Wanted int
	// Linked and LinkedWanted are how many of them have a link to the internet, and shall.
	Linked, LinkedWanted int
	// Precreated is how many containers wait that were made ahead for functions which cannot be started in a sandbox of the pools.
	Precreated int
	Starts     map[StartPath]uint64
}

// Pool describes the pools together.
func (d *Driver) Pool() PoolState {
	all := PoolState{Precreated: d.precreated.count(), Starts: map[StartPath]uint64{}}
	for _, p := range d.pools() {
		p.mu.Lock()
		all.Waiting += len(p.idle)
		all.Linked += p.idleLocked(true)
		if p.opened {
			plain, linked := p.sizesLocked(time.Now())
			all.Wanted += plain + linked
			all.LinkedWanted += linked
		}
		for path, n := range p.counts {
			all.Starts[path] += n
		}
		p.mu.Unlock()
	}
	return all
}

func (d *Driver) pools() []*pool { return []*pool{d.pool, d.mapped} }

// poolOf is the pool whose sandboxes the artifact can be started in.
func (d *Driver) poolOf(art *artifact) *pool {
	if art.user.mapped {
		return d.mapped
	}
	return d.pool
}

// drainPools empties the pools.
func (d *Driver) drainPools() {
	for _, p := range d.pools() {
		p.drain()
	}
}

func (p *pool) counted(path, reason string) {
	p.mu.Lock()
	p.counts[StartPath{path, reason}]++
	p.mu.Unlock()
}

// open begins to fill the pool, where that has not begun. It must be called on a driver that works.
func (p *pool) open() {
	p.mu.Lock()
	opened := p.opened
	p.opened = p.bounds.ceiling > 0
	p.mu.Unlock()
	if opened || p.bounds.ceiling == 0 {
		return
	}
	root, err := p.d.poolRoot()
	if err != nil {
		p.d.log.Warn("no sandboxes are made ahead", "err", err)
		p.mu.Lock()
		p.opened = false
		p.mu.Unlock()
		p.fails("there is no pool: " + err.Error())
		return
	}
	ctx, cancel := context.WithCancel(p.d.scope(p.d.ctx))
	p.mu.Lock()
	p.cancel = cancel
	p.mu.Unlock()
	for range makers {
		p.tasks.Go(func() { p.refill(ctx, root) })
	}
	p.tasks.Go(func() { p.trim(ctx) })
}

// drain removes every waiting sandbox, and returns when none is left and none is being made.
func (p *pool) drain() {
	p.mu.Lock()
	idle, cancel := p.idle, p.cancel
	p.idle, p.opened = nil, false
	p.dismissLocked()
	p.mu.Unlock()
	if cancel != nil {
		cancel()
	}
	var all errgroup.Group
	all.SetLimit(drainers)
	for _, s := range idle {
		_ = s.stopWatch()
		s.close()
		all.Go(func() error { p.remove(s.box); return nil })
	}
	_ = all.Wait()
	p.tasks.Wait()
	p.d.leaveKeepers()
}

// leaveKeepers lets go of the keepers once nothing needs them: they end then.
func (d *Driver) leaveKeepers() {
	for _, p := range d.pools() {
		p.mu.Lock()
		opened := p.opened
		p.mu.Unlock()
		if opened {
			return
		}
	}
	if !d.hasOwn() {
		d.keepers.leave()
	}
}

// startBegins says that a start is under way until a while after the function that it returns is called: the processors are the start's.
func (d *Driver) startBegins(b *box, s sandbox.Spec, art *artifact) (made func()) {
	if !s.GVisor {
		d.poolOf(art).asked(s.Egress)
	}
	d.cfg.Awake.Count(1)
	for _, p := range d.pools() {
		p.count(1)
	}
	return func() {
		b.settles(sync.OnceFunc(func() {
			d.cfg.Awake.Count(-1)
			for _, p := range d.pools() {
				p.count(-1)
			}
			d.precreated.changed()
		}))
	}
}

// settles has f called, which may be called more than once, when the function has had time to become ready.
func (b *box) settles(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.settle = f
	time.AfterFunc(settleTime, f)
}

// count notes that more starts, or fewer, are under way.
func (p *pool) count(n int) {
	p.mu.Lock()
	p.starts += n
	if n > 0 {
		p.yield.started(time.Now())
	}
	p.mu.Unlock()
	p.changed()
}

// starting is how many starts are under way.
func (p *pool) starting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.starts
}

// changed has every maker look again.
func (p *pool) changed() {
	for range makers {
		select {
		case p.wake <- struct{}{}:
		default:
		}
	}
}

// take returns a sandbox made ahead; where none is left, the next one that is made, and that it had to be waited for; or nil and why there is none.
// It has a link to the internet only where egress is asked for, and there only where one is left.
func (p *pool) take(ctx context.Context, egress bool) (*spare, string) {
	p.mu.Lock()
	i := p.findLocked(egress)
	if i < 0 {
		return p.wait(ctx, egress)
	}
	s := p.idle[i]
	p.idle = slices.Delete(p.idle, i, i+1)
	p.mu.Unlock()
	// One that has ended meanwhile is found out at the start, which goes another way then.
	_ = s.stopWatch()
	p.changed()
	return s, ""
}

// refill makes one sandbox after the other until the pool is full, whenever it is not.
func (p *pool) refill(ctx context.Context, root string) {
	pause := firstRetry
	for {
		now, ok := p.awaitTurn(ctx)
		if !ok {
			return
		}
		s, err := p.perform(ctx, root, now)
		p.mu.Lock()
		*p.makingLocked(now.link)--
		p.mu.Unlock()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				s.close()
				p.remove(s.box)
			}
			return
		case err != nil:
			p.d.log.Warn("a sandbox cannot be made ahead", "err", err)
			p.fails("no sandbox could be made ahead: " + err.Error())
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
			pause = min(2*pause, lastRetry)
		default:
			pause = firstRetry
			p.add(s)
		}
	}
}

// turn is what a maker does: it makes a sandbox, with a link where link says so, or gives one that waits without need a link; urgent says that the
// next starts wait for it.
type turn struct {
	link, urgent bool
	waits        *spare
}

// perform returns the sandbox that the turn is about.
func (p *pool) perform(ctx context.Context, root string, now turn) (s *spare, err error) {
	if s = now.waits; s != nil {
		// One that has ended meanwhile is found out when it is watched again.
		_ = s.stopWatch()
		s.watched = make(chan struct{})
	} else if s, err = p.d.makeSpare(ctx, root, p.mapped, now.urgent); err != nil {
		return nil, err
	}
	if now.link {
		p.link(s)
	}
	return s, nil
}

// awaitTurn returns, with one more sandbox counted as being made, when one is wanting and no start that it gives way to is under way; not ok: ctx has
// ended.
func (p *pool) awaitTurn(ctx context.Context) (_ turn, ok bool) {
	timer := time.NewTimer(yieldTime)
	defer timer.Stop()
	for ctx.Err() == nil {
		now := time.Now()
		p.mu.Lock()
		want, links := p.sizesLocked(now)
		left := p.idleLocked(false)
		room := len(p.idle)+p.making+p.links.making < p.bounds.ceiling+len(p.waiters)
		short := room && left+p.making < want+len(p.waiters)
		// A link can be made at the start: sandboxes without one come first.
		link := !short && (room || left > want) && p.links.short(now, links-p.idleLocked(true))
		low := short && left <= want/lowShare
		insists := p.yield.ended(now, short || link, low)
		// Beside starts one at a time, as long as there are some left.
		begin := (short || link) && (p.starts == 0 || insists && (low || p.making+p.links.making == 0))
		// The last of a burst go before those that are made for the next one.
		urgent := short && left == 0 || insists && (!low || p.yield.long(now))
		what := turn{link: link, urgent: urgent}
		if begin {
			*p.makingLocked(link)++
			if link && left > want {
				what.waits = p.pluckLocked()
			}
		}
		p.mu.Unlock()
		if begin {
			return what, true
		}
		timer.Reset(yieldTime)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-p.wake:
		}
	}
	return turn{}, false
}

// trim gives up sandboxes of a pool that has become too large, a tenth of what is too much at a time.
func (p *pool) trim(ctx context.Context) {
	tick := time.NewTicker(trimEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		p.mu.Lock()
		plain, linked := p.sizesLocked(time.Now())
		gone := append(p.trimLocked(false, plain), p.trimLocked(true, linked)...)
		p.mu.Unlock()
		for _, s := range gone {
			p.giveUp(s)
		}
	}
}

// trimLocked takes a tenth of those that are too many out of the sandboxes with a link, or of those without.
func (p *pool) trimLocked(linked bool, most int) (gone []*spare) {
	over := p.idleLocked(linked) - most
	for i := len(p.idle) - 1; i >= 0 && len(gone) < (over+9)/10; i-- {
		if p.idle[i].linked == linked {
			gone = append(gone, p.idle[i])
			p.idle = slices.Delete(p.idle, i, i+1)
		}
	}
	return gone
}

// giveUp removes a waiting sandbox that is in the pool no more.
func (p *pool) giveUp(s *spare) {
	_ = s.stopWatch()
	s.close()
	p.remove(s.box)
}

// loseKept removes the waiting sandboxes of a keeper that has ended.
func (p *pool) loseKept(path string) {
	p.mu.Lock()
	var gone []*spare
	p.idle = slices.DeleteFunc(p.idle, func(s *spare) bool {
		if s.box.keeper != path {
			return false
		}
		gone = append(gone, s)
		return true
	})
	p.mu.Unlock()
	for _, s := range gone {
		p.giveUp(s)
	}
	p.changed()
}

// add has a start that waits take the sandbox, or keeps it.
func (p *pool) add(s *spare) {
	p.mu.Lock()
	opened := p.opened
	p.empty, p.stuck = poolEmpty, false
	if opened && !p.handLocked(s) {
		p.idle = append(p.idle, s)
		p.tasks.Go(func() { s.watch(func() { p.lose(s) }) })
	}
	p.mu.Unlock()
	if !opened {
		s.close()
		p.remove(s.box)
	}
}

// lose removes a waiting sandbox whose init has ended; one that was taken is its taker's.
func (p *pool) lose(s *spare) {
	p.mu.Lock()
	i := slices.Index(p.idle, s)
	if i >= 0 {
		p.idle = slices.Delete(p.idle, i, i+1)
	}
	p.mu.Unlock()
	if i < 0 {
		return
	}
	p.d.log.Warn("a waiting sandbox has ended", "inst", s.box.sid)
	s.close()
	p.changed()
	p.remove(s.box)
}

// discard removes a sandbox while the caller goes on.
func (p *pool) discard(b *box) {
	p.tasks.Go(func() { p.remove(b) })
}

// remove goes on when the driver is closing.
func (p *pool) remove(b *box) { p.d.discard(context.WithoutCancel(p.d.scope(p.d.ctx)), b) }

// discard removes a sandbox that never was an instance's. What it cannot remove, the next start does.
func (d *Driver) discard(ctx context.Context, b *box) {
	ctx, cancel := context.WithTimeout(ctx, cleanupTime)
	defer cancel()
	if err := d.remove(ctx, b); err != nil {
		d.log.Warn("a sandbox made ahead is not removed", "inst", b.sid, "err", err)
	}
}
