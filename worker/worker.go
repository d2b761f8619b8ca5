package worker

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/runtime/sandbox"
	"github.com/tatami-faas/tatami/worker/logs"
	"github.com/tatami-faas/tatami/worker/meter"
)

// Bus is what a worker needs of the bus: in the server's process that is the bus itself, elsewhere a link to it.
type Bus interface {
	Conn() *nats.Conn
	// Boot identifies this run of the process.
	Boot() string
	// Named returns those of the digests whose artifacts are needed.
	Named(ctx context.Context, digests []string) ([]string, error)
}

// Worker is the agent of one node.
type Worker struct {
	cfg         Config
	capacity    functions.Resources
	allocatable functions.Resources
	// dismissed says that the instances are to end with the worker.
	dismissed atomic.Bool
	driver    sandbox.Driver
	bus       Bus
	log       *slog.Logger
	logs      *logs.Logs
	machine   *meter.Machine
	load      atomic.Pointer[meter.Load]
	lacks     atomic.Pointer[map[functions.Feature]string]
	out       *outbox
	artifacts *artifacts
	prefetch  *prefetch
	ready     chan struct{}
	// hears says that commands are taken.
	hears atomic.Bool
	// listener is nil where no gateway comes from elsewhere; set by Run before anything else.
	listener *listener
	// near says that a gateway of this process takes slots.
	near atomic.Bool

	starts *turns
	// cannotReclaim says that the node has no way to take memory back; the measuring goroutine's.
	cannotReclaim bool

	thaws struct {
		count atomic.Uint64
		took  atomic.Int64
	}

	// table is replaced, never changed, so that Admit and Dial read it without a lock.
	table atomic.Pointer[map[functions.InstanceID]*instance]

	// base is the context of what goes on until it is done, Run's end notwithstanding; set by Run before anything else.
	base context.Context

	mu      sync.Mutex
	closing bool
	// departed says that nothing is left on the node, and nothing more comes.
	departed bool
	epoch    uint64
	past     past
	live     sync.WaitGroup
}

// New makes a worker; it starts nothing.
func New(cfg Config, driver sandbox.Driver, b Bus, log *slog.Logger) (*Worker, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	capacity, allocatable, err := cfg.Resources()
	if err != nil {
		return nil, err
	}
	l, err := logs.New(cfg.Logs, log)
	if err != nil {
		return nil, err
	}
	w := &Worker{
		cfg: cfg, capacity: capacity, allocatable: allocatable, driver: driver, bus: b, log: log, logs: l,
		machine: meter.NewMachine(""), ready: make(chan struct{}), starts: newTurns(cfg.StartConcurrency),
		epoch: bus.Epoch,
	}
	w.out = newOutbox(w)
	w.artifacts = newArtifacts(driver, b, log, cfg.ArtifactGrace)
	w.prefetch = newPrefetch(driver, w.artifacts, log, cfg.PrepareTimeout)
	w.table.Store(&map[functions.InstanceID]*instance{})
	w.load.Store(&meter.Load{})
	w.lacks.Store(&map[functions.Feature]string{})
	return w, nil
}

// Ready is closed once what outlived an earlier run is known, and commands are taken.
func (w *Worker) Ready() <-chan struct{} { return w.ready }

// Dismiss says that this is no node any more: the instances end with the worker, whatever Config.KeepInstances says.
func (w *Worker) Dismiss() { w.dismissed.Store(true) }

// Run works until ctx ends. Then it takes no more commands, lets the invocations that run end, within Config.DrainTimeout, and stops every
// instance, or leaves them if Config.KeepInstances says so.
func (w *Worker) Run(ctx context.Context) error {
	w.base = context.WithoutCancel(ctx)
	inner, stop := context.WithCancel(w.base)
	defer stop()
	g, gctx := errgroup.WithContext(inner)
	if w.cfg.Listen != "" {
		var err error
		if w.listener, err = newListener(ctx, w, w.cfg.Listen); err != nil {
			return err
		}
		g.Go(func() error { return w.listener.run(gctx) })
	}
	g.Go(func() error { return w.logs.Run(gctx) })
	g.Go(func() error { return w.out.run(gctx) })
	g.Go(func() error { return w.measure(gctx) })
	g.Go(func() error { return w.beat(gctx) })
	g.Go(func() error { return w.artifacts.run(gctx) })
	g.Go(func() error { return w.prefetch.run(gctx) })
	g.Go(func() error { return w.rejoin(gctx) })

	err := w.serve(ctx, gctx)
	// After a fault of our own the instances are left as after a crash: they serve again once they are adopted.
	w.shutdown(w.cfg.KeepInstances && !w.dismissed.Load() || err != nil || gctx.Err() != nil)
	stop()
	if gerr := g.Wait(); gerr != nil {
		return gerr
	}
	return err
}

// serve works until one of the contexts ends.
func (w *Worker) serve(ctx, inner context.Context) error {
	if err := w.adopt(ctx); err != nil {
		return err
	}
	w.lookAround()
	unsubscribe, err := w.subscribe()
	if err != nil {
		return err
	}
	defer unsubscribe()
	w.out.everything()
	w.hears.Store(true)
	defer w.hears.Store(false)
	close(w.ready)
	select {
	case <-ctx.Done():
	case <-inner.Done():
	}
	return nil
}

// shutdown ends every instance, or leaves it, and returns when the last one's goroutine has.
func (w *Worker) shutdown(leave bool) {
	w.mu.Lock()
	w.closing = true
	all := maps.Clone(*w.table.Load())
	w.mu.Unlock()
	const reason = "the worker is stopping"
	deadline := time.Now().Add(w.cfg.DrainTimeout)
	for _, in := range all {
		w.shut(in)
	}
	if leave && w.listener != nil {
		awaitSlots(all, deadline)
	}
	for _, in := range all {
		if leave && in.askEnd(end{reason: reason, leave: true}) {
			continue
		}
		if in.askEnd(end{reason: reason, deadline: deadline}) {
			w.out.departed(in, functions.InstanceDraining, reason)
		}
	}
	w.out.everything()
	w.live.Wait()
	w.mu.Lock()
	w.departed = !leave
	w.mu.Unlock()
	w.out.everything()
}

// awaitSlots returns when no slot is held or the deadline is over. What gateways elsewhere have under way runs through this process.
func awaitSlots(all map[functions.InstanceID]*instance, deadline time.Time) {
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	for _, in := range all {
		select {
		case <-in.slots.drained:
		case <-timer.C:
			return
		}
	}
}

// rejoin tells everything whenever the bus is there again, until ctx ends: what was said meanwhile nobody heard.
func (w *Worker) rejoin(ctx context.Context) error {
	conn := w.bus.Conn()
	back := conn.StatusChanged(nats.CONNECTED)
	defer conn.RemoveStatusListener(back)
	for {
		select {
		case <-back:
			w.out.everything()
		case <-ctx.Done():
			return nil
		}
	}
}

// register takes an instance in and runs its life; false when the worker is stopping.
func (w *Worker) register(in *instance, life func()) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closing {
		return false
	}
	w.put(in)
	w.live.Go(life)
	return true
}

// put adds to the table; w.mu is held.
func (w *Worker) put(in *instance) {
	t := maps.Clone(*w.table.Load())
	t[in.id()] = in
	w.table.Store(&t)
}

// drop takes an instance out of the table and remembers how it ended.
func (w *Worker) drop(in *instance, last bus.InstanceReport) {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := maps.Clone(*w.table.Load())
	delete(t, in.id())
	w.table.Store(&t)
	w.past.add(last)
}

func (w *Worker) lookup(id functions.InstanceID) *instance { return (*w.table.Load())[id] }

// measure reads usages and reports everything, again and again.
func (w *Worker) measure(ctx context.Context) error {
	tick := time.NewTicker(w.cfg.ReportEvery)
	defer tick.Stop()
	for {
		if l, err := w.machine.Load(); err != nil {
			w.log.Warn("the machine's load cannot be read", "err", err)
		} else {
			w.load.Store(&l)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		boxes := map[*instance]meter.Sandbox{}
		for _, in := range *w.table.Load() {
			if sb := in.sandbox(); sb != nil {
				boxes[in] = sb
			}
		}
		w.lookAround()
		meter.Each(ctx, boxes, func(in *instance, u functions.Usage) { in.usage.Store(&u) })
		w.reclaim(ctx)
		w.out.report()
	}
}

// lookAround notes what the node lacks now.
func (w *Worker) lookAround() {
	lacks := w.driver.Lacks()
	for f, why := range lacks {
		if _, known := (*w.lacks.Load())[f]; !known {
			w.log.Info("no function that needs it is placed here", "feature", string(f), "why", why)
		}
	}
	w.lacks.Store(&lacks)
}

// beat says that the worker is alive, whatever keeps measure, when it has not reported anything for a while.
func (w *Worker) beat(ctx context.Context) error {
	timer := time.NewTimer(bus.BeatEvery)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
			timer.Reset(w.out.beat(time.Now()))
		}
	}
}

// nodeState is the node as reports tell it.
func (w *Worker) nodeState() bus.NodeState {
	w.mu.Lock()
	closing, departed := w.closing, w.departed
	w.mu.Unlock()
	load := w.load.Load()
	return bus.NodeState{
		Name: w.cfg.Name, Architecture: architecture, Capacity: w.capacity, Allocatable: w.allocatable,
		CPUUsed: load.CPU, MemoryUsed: load.Memory, Draining: closing, Departed: departed, Labels: w.cfg.Labels, Lacks: *w.lacks.Load(),
		Artifacts: w.driver.Prepared(),
	}
}

// past remembers the last ends, so that a late repetition of a start starts nothing anew.
type past struct {
	ends  map[functions.InstanceID]bus.InstanceReport
	order []functions.InstanceID
}

const pastEnds = 1024

func (p *past) add(r bus.InstanceReport) {
	if p.ends == nil {
		p.ends = map[functions.InstanceID]bus.InstanceReport{}
	}
	if len(p.order) == pastEnds {
		delete(p.ends, p.order[0])
		p.order = p.order[1:]
	}
	r.Logs = nil
	p.ends[r.Instance] = r
	p.order = append(p.order, r.Instance)
}

// asked reports whether a question is for this node: one that names none is for all.
func (w *Worker) asked(node []byte) bool { return len(node) == 0 || string(node) == string(w.cfg.Node) }

func (w *Worker) subscribe() (unsubscribe func(), err error) {
	type handler struct {
		subject string
		take    func(data []byte)
	}
	var undo []func() error
	unsubscribe = func() {
		for _, f := range undo {
			if err := f(); err != nil {
				w.log.Debug("unsubscribing", "err", err)
			}
		}
	}
	for _, h := range []handler{
		{bus.CommandSubject(w.cfg.Node), w.command},
		{bus.SubjectReportsWanted, func([]byte) { w.out.wanted() }},
		{bus.SubjectEndpointsWanted, func(node []byte) {
			if w.asked(node) {
				w.out.endpoints()
			}
		}},
	} {
		sub, err := w.bus.Conn().Subscribe(h.subject, func(m *nats.Msg) { h.take(m.Data) })
		if err != nil {
			unsubscribe()
			return nil, fmt.Errorf("subscribing to %s: %w", h.subject, err)
		}
		undo = append(undo, sub.Unsubscribe)
	}
	if !w.bus.Conn().IsConnected() {
		return unsubscribe, nil
	}
	// What is published after Ready must find the subscriptions.
	if err := w.bus.Conn().FlushTimeout(5 * time.Second); err != nil && w.bus.Conn().IsConnected() {
		unsubscribe()
		return nil, fmt.Errorf("subscribing: %w", err)
	}
	return unsubscribe, nil
}
