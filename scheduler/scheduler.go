package scheduler

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/scheduler/reconcile"
	"golang.org/x/sync/errgroup"
)

const (
	inputs = 1024
	writes = 256
	// stalled is when the loop itself ran so late that silence in the time before says nothing about nodes.
	stalled = 3 * time.Second
)

// input is run with the state in hand, and returns what follows.
type input func(now time.Time) []reconcile.Effect

// Scheduler is the control loop. Make it with New, run it once with Run.
type Scheduler struct {
	cfg Config
	bus *bus.Bus
	log *slog.Logger
	// in and demand are the inputs that wait for the loop; what a gateway needs goes before what else there is, by turns. queued counts all of them, the
	// one that the loop has in hand too.
	in     chan input
	demand chan input
	queued atomic.Int64
	write  chan reconcile.Effect
	ready  chan struct{}
	// running says that inputs are taken. It is changed with mu held.
	running atomic.Bool
	// sooner says that the loop is to look at the time again: something is due before it would wake.
	sooner chan struct{}

	// mu guards what follows.
	mu   sync.Mutex
	core *reconcile.Reconciler
	// ticked is when the loop last looked at everything, wake when it is to wake.
	ticked, wake time.Time
	// sequence counts the commands to each node; out sends them.
	sequence map[functions.NodeID]uint64
	out      bus.Publisher
	unsynced int

	// pool is what the last look at it gave; nil where there is none.
	pool atomic.Pointer[poolView]
}

// New returns a scheduler over the bus. It starts nothing.
func New(cfg Config, b *bus.Bus, log *slog.Logger) (*Scheduler, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Scheduler{
		cfg: cfg,
		bus: b,
		log: log,
		core: reconcile.New(reconcile.Config{
			Settle: cfg.Settle, PlaceTimeout: cfg.PlaceTimeout, TrafficDelay: cfg.TrafficDelay,
			Compact: cfg.Compact == CompactIdle, CompactAfter: cfg.CompactAfter,
		}, functions.NewInstanceID),
		in:       make(chan input, inputs),
		demand:   make(chan input, inputs),
		write:    make(chan reconcile.Effect, writes),
		ready:    make(chan struct{}),
		sooner:   make(chan struct{}, 1),
		sequence: map[functions.NodeID]uint64{},
	}, nil
}

// Ready is closed when the records are known and workers have been asked for what runs.
func (s *Scheduler) Ready() <-chan struct{} { return s.ready }

// Run decides until ctx ends and returns nil then. Instances are left as they are: ending them is their worker's affair.
func (s *Scheduler) Run(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	s.begin()
	unsubscribe, err := s.subscribe(gctx)
	if err != nil {
		s.end()
		return err
	}
	defer unsubscribe()
	g.Go(func() error { s.loop(gctx); return nil })
	g.Go(func() error { s.beat(gctx); return nil })
	g.Go(func() error { s.writer(gctx); return nil })
	g.Go(func() error { s.save(gctx); return nil })
	s.followPool(gctx, g)
	s.watch(gctx, g)
	err = g.Wait()
	s.end()
	s.saveAll(ctx)
	if err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

func (s *Scheduler) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ticked = time.Now()
	s.wake = s.ticked.Add(s.cfg.Tick)
	s.running.Store(true)
}

// end has no further input taken.
func (s *Scheduler) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running.Store(false)
}

// offer hands an input on and returns once it is taken, or lies before the loop; it blocks while the loop is behind.
func (s *Scheduler) offer(ctx context.Context, in input) { s.hand(ctx, s.in, in) }

func (s *Scheduler) hand(ctx context.Context, to chan<- input, in input) {
	if s.now(in) {
		return
	}
	s.queued.Add(1)
	select {
	case to <- in:
	case <-ctx.Done():
		s.queued.Add(-1)
	}
}

// now takes an input on the spot, if nothing else is being taken or waits: then nobody has to be woken for it. What one source brings keeps its order.
func (s *Scheduler) now(in input) bool {
	if s.queued.Load() > 0 || !s.mu.TryLock() {
		return false
	}
	defer s.mu.Unlock()
	s.take(in)
	if next := s.next(); next.Before(s.wake) {
		s.wake = next
		select {
		case s.sooner <- struct{}{}:
		default:
		}
	}
	return true
}

// take takes an input and carries out what follows from it; s.mu is held.
func (s *Scheduler) take(in input) {
	if s.running.Load() {
		s.carryOut(in(time.Now()))
	}
}

// taken takes an input that lay before the loop.
func (s *Scheduler) taken(in input) {
	s.mu.Lock()
	s.take(in)
	s.mu.Unlock()
	s.queued.Add(-1)
}

// next is when the loop has something to do; s.mu is held.
func (s *Scheduler) next() time.Time {
	wake := s.ticked.Add(s.interval())
	if next := s.core.Next(); !next.IsZero() && next.Before(wake) {
		return next
	}
	return wake
}

// loop takes the inputs that wait, and does what time asks for.
func (s *Scheduler) loop(ctx context.Context) {
	timer := time.NewTimer(s.cfg.Tick)
	defer timer.Stop()
	for {
		select {
		case in := <-s.demand:
			s.taken(in)
		default:
		}
		select {
		case <-ctx.Done():
			return
		case in := <-s.demand:
			s.taken(in)
		case in := <-s.in:
			s.taken(in)
		case <-s.sooner:
		case <-timer.C:
		}
		timer.Reset(max(time.Until(s.pass()), 0))
	}
}

// pass does what is due, and returns when the next is.
func (s *Scheduler) pass() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	switch {
	case now.Before(s.next()):
	case now.Before(s.ticked.Add(s.interval())):
		s.carryOut(s.core.Due(now))
	default:
		if now.Sub(s.ticked) > stalled {
			s.log.Warn("the scheduler was held up", "dur_ms", now.Sub(s.ticked).Milliseconds())
			s.carryOut(s.core.Excuse(now))
		}
		s.carryOut(s.core.Tick(now))
		s.ticked = now
	}
	s.wake = s.next()
	return s.wake
}

// beat says to itself, on the way that the reports take, that it listens. What is late on that way makes the beat late too.
func (s *Scheduler) beat(ctx context.Context) {
	tick := time.NewTicker(bus.BeatEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := s.bus.Conn().Publish(bus.ListenSubject(s.bus.Boot()), nil); err != nil {
			s.log.Error("the scheduler's beat failed; no node is taken for lost meanwhile", "err", err)
		}
	}
}

// interval is the time between ticks; s.mu is held.
func (s *Scheduler) interval() time.Duration {
	if s.core.Busy() {
		return s.cfg.Tick
	}
	return s.cfg.IdleTick
}

// carryOut does what was decided; s.mu is held. Nothing in it waits: a command is a publish, a change of records goes to the writer.
func (s *Scheduler) carryOut(effects []reconcile.Effect) {
	for i := range effects {
		e := &effects[i]
		switch e.Kind {
		case reconcile.Send:
			s.send(&e.Command)
		case reconcile.AskReports:
			if err := s.bus.Conn().Publish(bus.SubjectReportsWanted, nil); err != nil {
				s.log.Error("asking for reports failed", "err", err)
			}
		case reconcile.Tell:
			s.log.Info("to the operator", "text", e.Reason)
		default:
			select {
			case s.write <- *e:
			default:
				s.log.Warn("too many changes of records are waiting; this one is made later", "fn", e.Ref.String())
			}
		}
	}
}

func (s *Scheduler) send(c *bus.Command) {
	node := c.Node
	s.sequence[node]++
	c.Boot, c.Sequence, c.Epoch = s.bus.Boot(), s.sequence[node], s.cfg.Epoch
	if s.cfg.Near == nil || !s.cfg.Near(c) {
		if err := s.out.Publish(s.bus.Conn(), bus.CommandSubject(node), c); err != nil {
			s.log.Error("sending a command failed", "action", c.Action, "inst", c.Instance, "node", node, "err", err)
			return
		}
	}
	s.log.Debug("command", "action", c.Action, "inst", c.Instance, "node", node, "reason", c.Reason)
}
