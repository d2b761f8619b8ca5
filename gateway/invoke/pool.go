package invoke

import (
	"sync"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
)

const (
	// asyncShare: of so many slots granted while both classes wait, one goes to the queue.
	asyncShare = 4
	// A worker's refusal means that it knows better: the instance drains, or another gateway filled it. It is asked again after a while,
	// which doubles, unless the worker's table settles it before.
	refusalBase = 2 * time.Millisecond
	refusalMax  = 100 * time.Millisecond
)

// pool holds a function's instances and waiters. While somebody waits there is no free slot: whatever frees one hands it on at once.
type pool struct {
	fn *function

	mu sync.Mutex
	// route is the one that the fields below follow; live is the revision that takes the traffic.
	route *route
	live  *functions.Revision
	insts map[functions.InstanceID]*instance
	free  instHeap
	sync  waitList
	async waitList
	// grants counts the slots granted while both classes waited.
	grants uint64
	uses   uint64
	crowd  crowd

	inFlight int
	backlog  int
	// announced is how many waiters the last demand message named.
	announced int
	busy      meter
	// dropped says that the registry forgot the function.
	dropped bool
	// touched says that the function was used since the last demand message.
	touched bool
}

func (p *pool) init(f *function) {
	p.fn = f
	p.insts = map[functions.InstanceID]*instance{}
}

// meter is the mean of a level over time.
type meter struct {
	level   int
	area    float64
	since   time.Time
	started time.Time
	// busy is when the level was last above zero.
	busy time.Time
}

func (m *meter) set(level int, now time.Time) {
	if m.started.IsZero() {
		m.started, m.since = now, now
	}
	// Callers read the clock before they take the lock.
	if now.After(m.since) {
		m.area += float64(m.level) * now.Sub(m.since).Seconds()
		m.since = now
		if m.level > 0 {
			m.busy = now
		}
	}
	m.level = level
}

// quiet is how long ago the level was above zero; zero while it is, and where it never was.
func (m *meter) quiet(now time.Time) time.Duration {
	if m.level > 0 || m.busy.IsZero() {
		return 0
	}
	return max(now.Sub(m.busy), 0)
}

// take returns the mean since the last take and begins anew.
func (m *meter) take(now time.Time) float64 {
	m.set(m.level, now)
	total := now.Sub(m.started).Seconds()
	mean := float64(m.level)
	if total > 0 {
		mean = m.area / total
	}
	m.area, m.started, m.since = 0, now, now
	return mean
}

// note keeps the function's level up to date; p.mu is held.
func (p *pool) note(now time.Time) {
	p.touched = true
	p.busy.set(p.inFlight+p.sync.n, now)
}

// take returns the free instance to be used next with a slot of it taken, or nil; p.mu is held.
func (p *pool) take() *instance {
	if len(p.free) == 0 {
		return nil
	}
	i := p.free[0]
	if i.full() {
		return nil
	}
	i.held++
	p.uses++
	i.used = p.uses
	p.free.down(0)
	p.inFlight++
	return i
}

// put gives a slot back; p.mu is held.
func (p *pool) put(i *instance) {
	i.held--
	p.inFlight--
	p.uses++
	i.used = p.uses
	p.free.fix(i)
}

// dispatch grants free slots to waiters; p.mu is held.
func (p *pool) dispatch() {
	for p.sync.n+p.async.n > 0 {
		i := p.take()
		if i == nil {
			return
		}
		list := &p.sync
		if p.sync.n == 0 {
			list = &p.async
		} else if p.async.n > 0 {
			if p.grants++; p.grants%asyncShare == 0 {
				list = &p.async
			}
		}
		if list == &p.sync {
			p.crowd.grants++
		}
		list.popFront().ready <- grant{inst: i, ep: i.ep, rev: p.live}
	}
}

// fail ends the wait of everybody who waits in the lists; p.mu is held.
func (p *pool) fail(err error, lists ...*waitList) {
	for _, l := range lists {
		for w := l.popFront(); w != nil; w = l.popFront() {
			w.ready <- grant{err: err}
		}
	}
}

// acquire takes a slot at once, or returns a waiter that was put into the list.
func (p *pool) acquire(class Class, maxWaiting int, now time.Time) (grant, *waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.follow()
	if p.sync.n+p.async.n == 0 {
		if i := p.take(); i != nil {
			p.crowd.calm(now)
			p.note(now)
			return grant{inst: i, ep: i.ep, rev: p.live}, nil
		}
	}
	if err := p.unroutable(); err != nil {
		return grant{err: err}, nil
	}
	list := p.list(class)
	if list.n >= p.room(class, maxWaiting, now) {
		if class == Sync && p.crowd.shedding {
			return grant{err: p.fn.overloaded(p.liveSlots())}, nil
		}
		return grant{err: p.fn.tooMany(list.n)}, nil
	}
	w := p.waiter(class)
	list.pushBack(w)
	p.note(now)
	return grant{}, w
}

// unroutable says why the function takes no requests at all; p.mu is held.
func (p *pool) unroutable() error {
	if p.route == nil {
		return notFound(p.fn.ref)
	}
	if p.live == nil {
		return p.fn.noLive(p.route)
	}
	return nil
}

func (p *pool) list(c Class) *waitList {
	if c == Async {
		return &p.async
	}
	return &p.sync
}

// again puts a waiter whose grant the worker refused back to the front, and leaves the instance alone for a while.
func (p *pool) again(i *instance, w *waiter, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse(i)
	p.put(i)
	if err := p.unroutable(); err != nil {
		w.ready <- grant{err: err}
	} else if w.late {
		w.ready <- grant{err: errWaited}
	} else {
		p.list(w.class).pushFront(w)
	}
	p.dispatch()
	p.note(now)
}

// refuse takes the instance out of the choice for a while; p.mu is held.
func (p *pool) refuse(i *instance) {
	if i.refused || p.insts[i.ep.Instance] != i {
		return
	}
	i.refused = true
	p.free.remove(i)
	wait := min(refusalBase<<min(i.refusals, 10), refusalMax)
	i.refusals++
	time.AfterFunc(wait, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		i.refused = false
		p.offer(i)
		p.dispatch()
	})
}

// leave takes a waiter out. When it was granted a slot meanwhile the grant is returned, for the caller to give back.
func (p *pool) leave(w *waiter, now time.Time) (grant, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.list(w.class).remove(w) {
		p.note(now)
		return grant{}, false
	}
	return <-w.ready, true
}

// release gives a slot back and hands it on.
func (p *pool) release(i *instance, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i.refusals = 0
	p.put(i)
	p.dispatch()
	p.note(now)
}

// suspect gives back the slot of an instance that did not take a connection, and leaves it alone for a while.
func (p *pool) suspect(i *instance, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse(i)
	p.put(i)
	p.dispatch()
	p.note(now)
}

// offer puts an instance into the choice if it may be chosen; p.mu is held.
func (p *pool) offer(i *instance) {
	if !i.refused && p.live != nil && i.ep.Revision == p.live.ID && p.insts[i.ep.Instance] == i {
		p.free.push(i)
		p.free.fix(i)
	} else {
		p.free.remove(i)
	}
}

// reroute takes over the function's route.
func (p *pool) reroute(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.follow()
	p.busy.set(p.inFlight+p.sync.n, now)
}

// follow makes the choice of instances that of the function's present route; p.mu is held.
func (p *pool) follow() {
	rt := p.fn.route.Load()
	if rt == p.route {
		return
	}
	p.route, p.live = rt, nil
	if rt != nil {
		p.live = rt.live
	}
	for _, i := range p.insts {
		p.offer(i)
	}
	if err := p.unroutable(); err != nil {
		p.fail(err, &p.sync, &p.async)
	}
	p.dispatch()
}

// add takes an instance in, or takes over what changed of it. It is false for a function that was forgotten meanwhile.
func (p *pool) add(ep *bus.Endpoint, w Workers, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dropped {
		return false
	}
	p.follow()
	i := p.insts[ep.Instance]
	if i == nil {
		i = newInstance(p.fn, ep, w, now)
		p.insts[ep.Instance] = i
	}
	i.ep = ep
	i.refused, i.refusals = false, 0
	if ep.Frozen {
		i.up.renew()
	}
	p.offer(i)
	p.dispatch()
	p.busy.set(p.inFlight+p.sync.n, now)
	return true
}

// nodeOf returns the node of an instance; empty when it is not known.
func (p *pool) nodeOf(id functions.InstanceID) functions.NodeID {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := p.insts[id]; i != nil {
		return i.ep.Node
	}
	return ""
}

// remove lets an instance go; nil when it is not known.
func (p *pool) remove(id functions.InstanceID) *instance {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := p.insts[id]
	if i != nil {
		delete(p.insts, id)
		p.free.remove(i)
	}
	return i
}

// startFailed tells the waiters that an instance did not become ready, unless another one did or the traffic goes elsewhere.
func (p *pool) startFailed(sf *bus.StartFailure, reason string, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.live == nil || sf.Revision != p.live.ID {
		return
	}
	for _, i := range p.insts {
		if i.ep.Revision == p.live.ID {
			return
		}
	}
	p.fail(p.fn.notReady(reason, sf.Logs), &p.sync, &p.async)
	p.busy.set(p.inFlight+p.sync.n, now)
}

// hasFree reports whether a slot is free.
func (p *pool) hasFree() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.free) > 0 && !p.free[0].full()
}

// slots counts the slots of the live revision's instances.
func (p *pool) slots() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.liveSlots()
}

func (p *pool) liveSlots() int {
	n := 0
	for _, i := range p.insts {
		if p.live != nil && i.ep.Revision == p.live.ID {
			n += i.ep.Slots
		}
	}
	return n
}

// drop marks a pool that nothing uses as forgotten; false where something does.
func (p *pool) drop() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dropped = p.dropped || len(p.insts) == 0 && p.inFlight == 0 && p.sync.n+p.async.n == 0 && p.backlog == 0
	return p.dropped
}
