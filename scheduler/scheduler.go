package scheduler

import (
	"context"
	"log/slog"
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

// input is run by the loop, which alone touches the state.
type input func(now time.Time) []reconcile.Effect

// Scheduler is the control loop. Make it with New, run it once with Run.
type Scheduler struct {
	cfg  Config
	bus  *bus.Bus
	log  *slog.Logger
	core *reconcile.Reconciler
	// in and demand are the inputs; what a gateway needs goes before what else there is, by turns.
	in     chan input
	demand chan input
	write  chan reconcile.Effect
	ready  chan struct{}
	// hears says that the demand is listened to.
	hears atomic.Bool
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
		sequence: map[functions.NodeID]uint64{},
	}, nil
}

// Ready is closed when the records are known and workers have been asked for what runs.
func (s *Scheduler) Ready() <-chan struct{} { return s.ready }

// Run decides until ctx ends and returns nil then. Instances are left as they are: ending them is their worker's affair.
func (s *Scheduler) Run(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	unsubscribe, err := s.subscribe(gctx)
	if err != nil {
		return err
	}
	defer unsubscribe()
	s.hears.Store(true)
	defer s.hears.Store(false)
	g.Go(func() error { s.loop(gctx); return nil })
	g.Go(func() error { s.beat(gctx); return nil })
	g.Go(func() error { s.writer(gctx); return nil })
	g.Go(func() error { s.save(gctx); return nil })
	s.followPool(gctx, g)
	s.watch(gctx, g)
	err = g.Wait()
	s.saveAll(ctx)
	if err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// offer hands an input to the loop; it blocks while the loop is behind.
func (s *Scheduler) offer(ctx context.Context, in input) { hand(ctx, s.in, in) }

func hand(ctx context.Context, to chan<- input, in input) {
	select {
	case to <- in:
	case <-ctx.Done():
	}
}

func (s *Scheduler) loop(ctx context.Context) {
	last := time.Now()
	timer := time.NewTimer(s.cfg.Tick)
	defer timer.Stop()
	for {
		select {
		case in := <-s.demand:
			s.carryOut(in(time.Now()))
		default:
		}
		select {
		case <-ctx.Done():
			return
		case in := <-s.demand:
			s.carryOut(in(time.Now()))
		case in := <-s.in:
			s.carryOut(in(time.Now()))
		case <-timer.C:
			now := time.Now()
			if now.Before(last.Add(s.interval())) {
				s.carryOut(s.core.Due(now))
				break
			}
			if now.Sub(last) > stalled {
				s.log.Warn("the scheduler was held up", "dur_ms", now.Sub(last).Milliseconds())
				s.carryOut(s.core.Excuse(now))
			}
			s.carryOut(s.core.Tick(now))
			last = now
		}
		wake := last.Add(s.interval())
		if next := s.core.Next(); !next.IsZero() && next.Before(wake) {
			wake = next
		}
		timer.Reset(max(time.Until(wake), 0))
	}
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

// interval is the time between ticks.
func (s *Scheduler) interval() time.Duration {
	if s.core.Busy() {
		return s.cfg.Tick
	}
	return s.cfg.IdleTick
}

// carryOut does what was decided. Nothing in it waits: a command is a publish, a change of records goes to the writer.
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
