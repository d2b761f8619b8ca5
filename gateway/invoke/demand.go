package invoke

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
)

const (
	// waitingInterval is how often the demand is repeated while anything waits, trafficInterval while there is traffic.
	waitingInterval = 250 * time.Millisecond
	trafficInterval = time.Second
)

// demand tells the scheduler what is needed. It looks only at functions that are in use.
type demand struct {
	bus  *bus.Bus
	reg  *registry
	log  *slog.Logger
	wake chan struct{}
	// urgent says that the wake-up is about a need that no message has named.
	urgent atomic.Bool

	mu       sync.Mutex
	active   map[*function]struct{}
	sequence uint64
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
	d.signal(false)
}

// need sends a demand message at once if more wait than the last one said.
func (inv *Invoker) need(f *function) {
	inv.activate(f)
	f.pool.mu.Lock()
	more := f.pool.sync.n+f.pool.queued() > f.pool.announced
	f.pool.mu.Unlock()
	if more {
		inv.demand.signal(true)
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

func (d *demand) signal(urgent bool) {
	if urgent {
		d.urgent.Store(true)
	}
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// run publishes until ctx ends.
func (d *demand) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	defer timer.Stop()
	var due time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.wake:
			now := time.Now()
			if d.urgent.Swap(false) {
				due = now
			} else if due.IsZero() {
				due = now.Add(trafficInterval)
			}
			if due.After(now) {
				timer.Reset(due.Sub(now))
				continue
			}
		case <-timer.C:
		}
		next := d.publish(time.Now())
		due = time.Time{}
		timer.Stop()
		if next > 0 {
			due = time.Now().Add(next)
			timer.Reset(next)
		}
	}
}

// publish sends one message about every function in use and returns when the next is due; 0 is never.
func (d *demand) publish(now time.Time) time.Duration {
	d.mu.Lock()
	active := make([]*function, 0, len(d.active))
	for f := range d.active {
		active = append(active, f)
	}
	d.mu.Unlock()
	if len(active) == 0 {
		return 0
	}
	next := trafficInterval
	msg := bus.Demand{Gateway: string(d.bus.Identity().Node), Functions: make([]bus.FunctionDemand, 0, len(active))}
	for _, f := range active {
		fd, idle := f.pool.demand(now)
		fd.Namespace, fd.Function = f.ref.Namespace, f.ref.Name
		msg.Functions = append(msg.Functions, fd)
		if fd.Waiting+fd.Backlog > 0 {
			next = waitingInterval
		}
		if idle {
			d.retire(f)
		}
	}
	d.sequence++
	msg.Envelope = bus.Envelope{Schema: bus.Schema, Boot: d.bus.Boot(), Node: d.bus.Identity().Node, Sequence: d.sequence, Epoch: bus.Epoch}
	if err := bus.Publish(d.bus, bus.SubjectDemand, &msg); err != nil {
		d.log.Error("the demand was not sent", "err", err)
	}
	return next
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

// demand states the levels, and whether the function was not used since the last message.
func (p *pool) demand(now time.Time) (bus.FunctionDemand, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := bus.FunctionDemand{Waiting: p.sync.n, Backlog: p.queued(), InFlight: p.inFlight, Concurrency: p.busy.take(now)}
	d.Quiet = functions.Duration(p.busy.quiet(now))
	p.announced = d.Waiting + d.Backlog
	idle := !p.touched && p.announced == 0 && p.inFlight == 0
	p.touched = false
	return d, idle
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
