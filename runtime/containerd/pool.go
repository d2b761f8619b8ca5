//go:build linux

package containerd

import (
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tatami-faas/tatami/functions"
)

const (
	maxPool = 1000
	// spareCharge is what a waiting sandbox takes of the parent cgroup's memory while it is made, measured at 3.8 MB; then it is 0.9 MB.
	spareCharge = 4 * functions.MiB
	// spareCost is what it takes of the node: a shim of 7 MB besides.
	spareCost = 12 * functions.MiB
	// drainers is how many waiting sandboxes are removed at once.
	drainers = 4
	// settleTime is how long after a start its function has the processors for itself: it still has to become ready.
	settleTime = 50 * time.Millisecond
	// yieldTime is how long starts that never cease can keep the pool from being filled.
	yieldTime = 200 * time.Millisecond
	// firstRetry and lastRetry are the pauses after a sandbox could not be made.
	firstRetry = 100 * time.Millisecond
	lastRetry  = 30 * time.Second
)

// PoolCost is what a pool of so many waiting sandboxes takes of the node.
func PoolCost(size int) functions.Resources {
	return functions.Resources{Memory: int64(size) * spareCost, Instances: int64(size)}
}

// pool keeps sandboxes made ahead. Each is used once. What becomes of it afterwards is the box's that took it.
type pool struct {
	d *Driver
	// wake tells the goroutine that refills that something has changed.
	wake   chan struct{}
	tasks  sync.WaitGroup
	cancel context.CancelFunc

	mu     sync.Mutex
	opened bool
	idle   []*spare
	// empty says why there is none while there is none.
	empty string
	// starts is how many starts are under way, or were until settleTime ago.
	starts int
}

func newPool(d *Driver) *pool {
	return &pool{d: d, wake: make(chan struct{}, 1), empty: "the pool is empty"}
}

// open begins to fill the pool. It must be called on a driver that works.
func (p *pool) open() {
	if p.d.cfg.SandboxPool == 0 {
		return
	}
	root, err := p.d.poolRoot()
	if err != nil {
		p.d.log.Warn("no sandboxes are made ahead", "err", err)
		p.say("there is no pool: " + err.Error())
		return
	}
	ctx, cancel := context.WithCancel(p.d.scope(p.d.ctx))
	p.mu.Lock()
	p.opened, p.cancel = true, cancel
	p.mu.Unlock()
	p.tasks.Go(func() { p.refill(ctx, root) })
}

// drain removes every waiting sandbox, and returns when none is left and none is being made.
func (p *pool) drain() {
	p.mu.Lock()
	idle, cancel := p.idle, p.cancel
	p.idle, p.opened = nil, false
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
	if !p.d.hasOwn() {
		p.d.keepers.leave()
	}
}

// startBegins says that a start is under way until the function that it returns is called: the processors are the start's.
func (p *pool) startBegins() (ended func()) {
	p.count(1)
	return func() { time.AfterFunc(settleTime, func() { p.count(-1) }) }
}

func (p *pool) count(n int) {
	p.mu.Lock()
	p.starts += n
	p.mu.Unlock()
	p.changed()
}

func (p *pool) changed() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *pool) say(why string) {
	p.mu.Lock()
	p.empty = why
	p.mu.Unlock()
}

// take returns a waiting sandbox, or why there is none.
func (p *pool) take() (*spare, string) {
	p.mu.Lock()
	if len(p.idle) == 0 {
		defer p.mu.Unlock()
		return nil, p.empty
	}
	s := p.idle[0]
	p.idle = slices.Delete(p.idle, 0, 1)
	p.mu.Unlock()
	// One that has ended meanwhile is found out at the start, which goes another way then.
	_ = s.stopWatch()
	p.changed()
	return s, ""
}

// refill makes one sandbox after the other until the pool is full, whenever it is not.
func (p *pool) refill(ctx context.Context, root string) {
	pause, hungry := firstRetry, false
	for p.awaitTurn(ctx, &hungry) {
		s, err := p.d.makeSpare(ctx, root)
		switch {
		case ctx.Err() != nil:
			if err == nil {
				s.close()
				p.remove(s.box)
			}
			return
		case err != nil:
			p.d.log.Warn("a sandbox cannot be made ahead", "err", err)
			p.say("no sandbox could be made ahead: " + err.Error())
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
			pause = min(2*pause, lastRetry)
		default:
			pause = firstRetry
			p.say("the pool is empty")
			p.add(s)
		}
	}
}

// awaitTurn returns when a sandbox is wanting and no start is under way; false when ctx has ended. Where it has waited for yieldTime it is
// hungry, and waits for no start until the pool is full.
func (p *pool) awaitTurn(ctx context.Context, hungry *bool) bool {
	var late <-chan time.Time
	for {
		p.mu.Lock()
		wanting, busy := len(p.idle) < p.d.cfg.SandboxPool, p.starts > 0
		p.mu.Unlock()
		if ctx.Err() != nil {
			return false
		}
		*hungry = *hungry && wanting
		if wanting && (!busy || *hungry) {
			return true
		}
		if wanting && late == nil {
			late = time.After(yieldTime)
		}
		select {
		case <-ctx.Done():
			return false
		case <-late:
			*hungry = true
		case <-p.wake:
		}
	}
}

func (p *pool) add(s *spare) {
	p.mu.Lock()
	opened := p.opened
	if opened {
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
