package queue

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// Queue is the queue of a gateway. It is safe for concurrent use.
type Queue struct {
	cfg Config
	bus *bus.Bus
	run DataPath
	log *slog.Logger
	// courier carries what goes to destinations.
	courier *courier

	// ready is closed when the state of the stream is known; ending when Run drains; ended when it has.
	ready, ending, ended chan struct{}
	// restored is the last sequence of the stream that an earlier process may have handled.
	restored uint64

	mu     sync.Mutex
	tables map[functions.Ref]*tally
	// turns are the ordering keys, by the function's hash, whose turn an invocation of an earlier process has that waits for another attempt.
	turns map[string]map[string]functions.InvocationID
	lanes map[string]*lane
	// held are the messages in this process's hands, by invocation.
	held map[functions.InvocationID]*held
	// cancelling are the invocations that are being cancelled and were in no hands.
	cancelling map[functions.InvocationID]*cancellation
	waiters    map[functions.InvocationID][]chan struct{}
	// keys are those in use, until the channel is closed; calling are those under which a synchronous invocation runs.
	keys    map[string]chan struct{}
	calling map[string]bool
	dead    deadCounts

	redriving sync.Mutex
	// alarms are what waits for a time.
	alarms *alarms
	// horizon is for how long messages are fetched ahead.
	horizon time.Duration

	// onSuccess is set before Run; see OnSuccess.
	onSuccess func(context.Context, *functions.Invocation, *functions.Result) error
	// onEnd is set before Run; see OnEnd.
	onEnd func(*functions.Invocation, Status)

	// work counts goroutines outside Run's group: attempts and lanes. Those that have ended an attempt wait for the next one at spare, as
	// many as parked says: an attempt's stack is deep, and growing it anew each time costs a tenth of the attempt.
	work   sync.WaitGroup
	spare  chan func()
	parked atomic.Int32
	// alive ends at the end of the drain: it cuts running attempts. lanesCtx ends with Run's context, or with Rest.
	alive, lanesCtx     context.Context
	cutAlive, stopLanes context.CancelFunc
	// rested is when the lanes were ended; zero before. Mu guards it.
	rested time.Time
}

// NewOver makes a queue that runs functions through run. It starts nothing.
func NewOver(cfg Config, b *bus.Bus, run DataPath, log *slog.Logger) (*Queue, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	carry := newCourier(run, b.Conn())
	return &Queue{
		cfg: cfg, bus: b, run: paths{run, carry}, courier: carry, log: log,
		spare: make(chan func()), ready: make(chan struct{}), ending: make(chan struct{}), ended: make(chan struct{}),
		tables: map[functions.Ref]*tally{}, lanes: map[string]*lane{},
		held: map[functions.InvocationID]*held{}, cancelling: map[functions.InvocationID]*cancellation{}, waiters: map[functions.InvocationID][]chan struct{}{},
		alarms: newAlarms(), horizon: usualHorizon, keys: map[string]chan struct{}{}, calling: map[string]bool{},
	}, nil
}

// OnSuccess has f called with each invocation that succeeded, before its terminal record is written, again and again until f returns nil. After a
// crash it may be called once more for the same invocation. It is called once, before Run.
func (q *Queue) OnSuccess(f func(ctx context.Context, inv *functions.Invocation, rec *functions.Result) error) {
	q.onSuccess = f
}

// OnEnd has f called with each invocation that has ended, once that is on disk. After a crash it may be called once more for the same invocation, or
// not at all. It must not wait. It is called once, before Run.
func (q *Queue) OnEnd(f func(inv *functions.Invocation, st Status)) { q.onEnd = f }

// tellEnd calls what OnEnd was given.
func (q *Queue) tellEnd(inv *functions.Invocation, rec *functions.Result) {
	if q.onEnd != nil {
		q.onEnd(inv, ended(*rec))
	}
}

// Ready is closed when Run knows what the stream holds: Accept waits for it.
func (q *Queue) Ready() <-chan struct{} { return q.ready }

// Run takes up what is in the stream and dispatches until ctx ends. Then it starts no attempt any more, waits for the running ones as
// long as Config.Drain says, and returns nil; what it cut is delivered again to the next process. It is called once.
func (q *Queue) Run(ctx context.Context) error {
	defer close(q.ended)
	base := context.WithoutCancel(ctx)
	q.alive, q.cutAlive = context.WithCancel(base)
	q.lanesCtx, q.stopLanes = context.WithCancel(base)
	defer q.courier.close()
	defer q.cutAlive()
	defer q.stopLanes()
	stop := make(chan struct{})
	var extending sync.WaitGroup
	extending.Go(func() { q.extendLoop(stop) })
	defer extending.Wait()
	defer close(stop)
	if err := q.restore(ctx); err != nil {
		q.drain()
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	close(q.ready)
	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		select {
		case <-gctx.Done():
			return nil
		case <-q.bus.Failed():
			return q.bus.Failure()
		}
	})
	group.Go(func() error { q.sweepLoop(gctx); return nil })
	group.Go(func() error { q.alarmLoop(gctx); return nil })
	group.Go(func() error { q.settleKeys(gctx); return nil })
	err := group.Wait()
	q.drain()
	return err
}

// Rest has the queue start no attempt any more, as it does at the end, and go on with all else: Config.Drain counts from then. It does nothing before Ready.
func (q *Queue) Rest() {
	select {
	case <-q.ready:
	default:
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.rest()
}

// rest ends the lanes; q.mu is held.
func (q *Queue) rest() {
	if q.rested.IsZero() {
		q.rested = time.Now()
	}
	q.stopLanes()
}

// drain ends the lanes, waits for attempts and cuts those that take too long.
func (q *Queue) drain() {
	q.mu.Lock()
	close(q.ending)
	q.rest()
	over := q.rested.Add(q.cfg.Drain)
	q.mu.Unlock()
	done := make(chan struct{})
	go func() { q.work.Wait(); close(done) }()
	timer := time.NewTimer(time.Until(over))
	defer timer.Stop()
	select {
	case <-done:
		return
	case <-timer.C:
	case <-q.bus.Failed():
	}
	q.cutAlive()
	q.endSpans()
	<-done
}

// maxParked is how many goroutines wait for the next attempt.
const maxParked = 128

// goAttempt runs f on a goroutine of its own.
func (q *Queue) goAttempt(f func()) {
	select {
	case q.spare <- f:
		return
	default:
	}
	q.work.Go(func() {
		for {
			f()
			if q.parked.Add(1) > maxParked {
				q.parked.Add(-1)
				return
			}
			select {
			case f = <-q.spare:
				q.parked.Add(-1)
			case <-q.lanesCtx.Done():
				return
			}
		}
	})
}

// waitReady returns when acceptance and lookups can answer.
func (q *Queue) waitReady(ctx context.Context) error {
	select {
	case <-q.ready:
	default:
		select {
		case <-q.ready:
		case <-q.ended:
			return fault.New(fault.CodeDraining, "the queue is stopped")
		case <-ctx.Done():
			return fault.Wrap(fault.CodeUnavailable, ctx.Err(), "waiting for the queue to start")
		}
	}
	return nil
}

// publish stores a message in a stream under an id that makes a second try harmless, and waits for the server's acknowledgement.
func (q *Queue) publish(ctx context.Context, m *nats.Msg, id string) error {
	m.Header[jetstream.MsgIDHeader] = []string{id}
	if _, err := q.bus.Store(ctx, m); err != nil {
		return q.bus.Fault(err, "storing the invocation")
	}
	return nil
}
