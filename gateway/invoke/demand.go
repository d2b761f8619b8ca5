package invoke

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
)

// demand tells the scheduler what is needed. It looks only at functions that are in use.
type demand struct {
	bus  *bus.Bus
	reg  *registry
	log  *slog.Logger
	wake chan struct{}

	mu     sync.Mutex
	active map[*function]struct{}
	// urgent holds the functions with a need that no message has named.
	urgent []*function
	// sequence, pass and out are the publisher's.
	sequence uint64
	out      bus.Publisher
	// near is Config's.
	near func(*bus.Demand) bool
	pass pass
}

func newDemand(b *bus.Bus, reg *registry, log *slog.Logger) *demand {
	return &demand{bus: b, reg: reg, log: log, wake: make(chan struct{}, 1), active: map[*function]struct{}{}}
}

// activate makes the demand loop look at the function. It is called after what makes the function active, so that a loop that is just
// about to look away sees either that or the call.
func (inv *Invoker) activate(f *function) {
	if f.active.Load() {
		return
	}
	d := inv.demand
	d.mu.Lock()
	f.active.Store(true)
	d.active[f] = struct{}{}
	d.mu.Unlock()
	d.signal()
}

// need sends a demand message at once if more wait than the last one said.
func (inv *Invoker) need(f *function) {
	inv.activate(f)
	f.pool.mu.Lock()
	more := f.pool.sync.n+f.pool.queued() > f.pool.announced
	f.pool.mu.Unlock()
	if more {
		d := inv.demand
		d.mu.Lock()
		d.urgent = append(d.urgent, f)
		d.mu.Unlock()
		d.signal()
	}
}

// queued is what the queue wants to run; p.mu is held.
func (p *pool) queued() int { return max(p.backlog, p.async.n) }

// SetBacklog tells how many queued invocations of the function could run now. It is a level: the last value counts.
func (inv *Invoker) SetBacklog(ref functions.Ref, n int) {
	f := inv.reg.find(ref)
	if f == nil {
		if n == 0 {
			return
		}
		f = inv.reg.get(ref)
	}
	f.pool.mu.Lock()
	f.pool.backlog = n
	starved := n > 0 && len(f.pool.free) == 0
	f.pool.mu.Unlock()
	if n > 0 {
		inv.activate(f)
	} else if f.route.Load() == nil {
		inv.reg.drop(f)
	}
	if starved {
		inv.need(f)
	}
}

func (d *demand) signal() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

func (d *demand) publish(msg *bus.Demand) {
	d.sequence++
	id := d.bus.Identity().Node
	msg.Gateway = string(id)
	msg.Envelope = bus.Envelope{Schema: bus.Schema, Boot: d.bus.Boot(), Node: id, Sequence: d.sequence, Epoch: bus.Epoch}
	if d.near != nil && d.near(msg) {
		return
	}
	if err := d.out.Publish(d.bus.Conn(), bus.SubjectDemand, msg); err != nil {
		d.log.Error("the demand was not sent", "err", err)
	}
}

// retire stops looking at a function that is not in use; the message that named it with zeros was its last.
func (d *demand) retire(f *function) {
	d.mu.Lock()
	delete(d.active, f)
	f.active.Store(false)
	d.mu.Unlock()
	if f.pool.stirred() {
		// It was used again after its levels were read.
		d.mu.Lock()
		d.active[f] = struct{}{}
		f.active.Store(true)
		d.mu.Unlock()
		return
	}
	d.reg.drop(f)
}

// demand states the levels, and whether the function was not used since it was last asked.
func (p *pool) demand(now time.Time) (bus.FunctionDemand, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	idle := !p.touched && p.announced == 0 && p.inFlight == 0 && p.sync.n+p.queued() == 0
	p.touched = false
	return p.levels(now), idle
}

// demandAgain states the levels.
func (p *pool) demandAgain(now time.Time) bus.FunctionDemand {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.levels(now)
}

// pressed reports whether anything waits, or did when the last message named the function.
func (p *pool) pressed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.announced > 0 || p.sync.n+p.queued() > 0
}

// urgentDemand states the levels, and whether more wait than the last message said.
func (p *pool) urgentDemand(now time.Time) (bus.FunctionDemand, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sync.n+p.queued() <= p.announced {
		return bus.FunctionDemand{}, false
	}
	return p.levels(now), true
}

// levels is what a message says of the function; p.mu is held.
func (p *pool) levels(now time.Time) bus.FunctionDemand {
	ref := p.fn.ref
	d := bus.FunctionDemand{
		Namespace: ref.Namespace, Function: ref.Name,
		Waiting: p.sync.n, Backlog: p.queued(), InFlight: p.inFlight, Concurrency: p.busy.take(now),
	}
	d.Quiet = functions.Duration(p.busy.quiet(now))
	p.announced = d.Waiting + d.Backlog
	return d
}

// stirred reports whether the function is in use.
func (p *pool) stirred() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.touched || p.inFlight > 0 || p.sync.n+p.queued() > 0
}

// pendingReasons tells what the scheduler says about functions whose instances do not come. It asks when somebody wants to know.
type pendingReasons struct {
	bus *bus.Bus
	mu  sync.Mutex
	at  time.Time
	by  map[functions.Ref]string
}

const (
	pendingFresh   = time.Second
	pendingTimeout = 150 * time.Millisecond
)

// why returns "" where the scheduler says nothing. It may take pendingTimeout.
func (r *pendingReasons) why(ctx context.Context, ref functions.Ref) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.at) > pendingFresh {
		r.ask(ctx)
	}
	return r.by[ref]
}

func (r *pendingReasons) ask(ctx context.Context) {
	// The answer is for everybody who asks within pendingFresh, also when the first of them leaves.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pendingTimeout)
	defer cancel()
	r.at, r.by = time.Now(), map[functions.Ref]string{}
	m, err := r.bus.Conn().RequestWithContext(ctx, bus.SubjectOverview, nil)
	if err != nil {
		return
	}
	o, err := bus.Decode[bus.Overview](m.Data)
	if err != nil {
		return
	}
	for _, f := range o.Functions {
		if f.Pending != "" {
			r.by[functions.Ref{Namespace: f.Namespace, Name: f.Function}] = f.Pending
		}
	}
}
