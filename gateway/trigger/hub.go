package trigger

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/gateway/queue"
	"github.com/tatami-faas/tatami/gateway/trigger/cron"
	"github.com/tatami-faas/tatami/gateway/trigger/kafka"
	"github.com/tatami-faas/tatami/gateway/trigger/nats"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// Queue is what the hub needs of the queue.
type Queue interface {
	Accept(ctx context.Context, r queue.Request) (functions.InvocationID, error)
	Lookup(ctx context.Context, id functions.InvocationID, wait time.Duration) (queue.Status, error)
	Cancel(ctx context.Context, id functions.InvocationID) (queue.Status, error)
}

// Admission holds the rates of the namespaces.
type Admission interface {
	AllowQueued(ctx context.Context, ref functions.Ref) (*functions.Revision, error)
}

// Hub keeps the triggers and runs their sources. It is safe for concurrent use.
type Hub struct {
	bus   *bus.Bus
	queue Queue
	admit Admission
	log   *slog.Logger
	ready chan struct{}

	mu sync.RWMutex
	// entries are the triggers by their own names; posted those that take what is posted, by namespace, in the order of their names.
	entries map[functions.Ref]*entry
	posted  map[string][]*entry
	// applied is the revision of the table that entries stand for; changed is closed when it grows.
	applied uint64
	changed chan struct{}
}

// entry is a trigger at work.
type entry struct {
	trigger functions.Trigger
	tally   *tally
	// stop ends the source, done is closed when it has ended; nil where there is none.
	stop context.CancelFunc
	done chan struct{}
}

// New makes a hub; it knows no trigger before Run.
func New(b *bus.Bus, q Queue, admit Admission, log *slog.Logger) *Hub {
	return &Hub{
		bus: b, queue: q, admit: admit, log: log, ready: make(chan struct{}),
		entries: map[functions.Ref]*entry{}, posted: map[string][]*entry{}, changed: make(chan struct{}),
	}
}

// Ready is closed when the stored triggers are known.
func (h *Hub) Ready() <-chan struct{} { return h.ready }

// Run follows the stored triggers and runs their sources until ctx ends, waits for the sources and returns nil. It is called once.
func (h *Hub) Run(ctx context.Context) error {
	group, gctx := errgroup.WithContext(ctx)
	synced := false
	group.Go(func() error {
		return h.bus.Triggers().Watch(gctx, "", func(e bus.Event[functions.Trigger]) {
			if e.Synced {
				if !synced {
					synced = true
					close(h.ready)
				}
				return
			}
			h.apply(gctx, group, e)
		})
	})
	return group.Wait()
}

// apply takes a change of the table over. The old source of the trigger has ended before the new one begins.
func (h *Hub) apply(ctx context.Context, group *errgroup.Group, ev bus.Event[functions.Trigger]) {
	ns, name, _ := strings.Cut(ev.Key, ".")
	id := functions.Ref{Namespace: ns, Name: name}
	h.mu.Lock()
	defer h.mu.Unlock()
	old := h.entries[id]
	delete(h.entries, id)
	var before chan struct{}
	if old != nil && old.stop != nil {
		old.stop()
		before = old.done
	}
	if !ev.Deleted {
		e := &entry{trigger: ev.Value, tally: &tally{}}
		if old != nil && old.trigger.Created.Equal(e.trigger.Created) {
			e.tally = old.tally
		}
		h.entries[id] = e
		if run := h.sourceOf(e); run != nil && !e.trigger.Paused {
			sctx, stop := context.WithCancel(ctx)
			e.stop, e.done = stop, make(chan struct{})
			group.Go(func() error {
				defer stop()
				defer close(e.done)
				if before != nil {
					<-before
				}
				h.keepRunning(sctx, e, run)
				return nil
			})
		}
	}
	h.posted[ns] = h.postedIn(ns)
	h.applied = max(h.applied, ev.Revision)
	close(h.changed)
	h.changed = make(chan struct{})
}

// postedIn lists the triggers of a namespace that take what is posted.
func (h *Hub) postedIn(ns string) []*entry {
	var out []*entry
	for id, e := range h.entries {
		if id.Namespace == ns && e.trigger.Event != nil && !e.trigger.Paused {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b *entry) int { return strings.Compare(a.trigger.Name, b.trigger.Name) })
	return out
}

// sourceOf returns what takes the events of a trigger in; nil where others bring them.
func (h *Hub) sourceOf(e *entry) func(context.Context) error {
	if e.trigger.Cron != nil {
		return func(ctx context.Context) error {
			s, err := cron.New(e.trigger, &cronSink{h, e}, h.log)
			if err != nil {
				return err
			}
			return s.Run(ctx)
		}
	}
	if e.trigger.Kafka != nil {
		return kafka.New(e.trigger, &eventSink{h, e}, h.log).Run
	}
	if e.trigger.NATS != nil {
		return nats.New(e.trigger, &eventSink{h, e}, h.log).Run
	}
	return nil
}

// Check reports what is wrong with a trigger that only its source can tell.
func (h *Hub) Check(t *functions.Trigger) error {
	if t.Cron != nil {
		_, err := cron.Parse(t.Cron)
		return err
	}
	return nil
}

// The waits between two tries of a source that ends by itself.
const (
	leastWait = time.Second
	mostWait  = time.Minute
)

// keepRunning runs a source until ctx ends, again and again where it fails.
func (h *Hub) keepRunning(ctx context.Context, e *entry, run func(context.Context) error) {
	for wait := leastWait; ctx.Err() == nil; wait = min(2*wait, mostWait) {
		begun := time.Now()
		err := run(ctx)
		if ctx.Err() != nil {
			return
		}
		e.tally.broke(err)
		h.log.Warn("a trigger's source ended, it is started again", "trigger", e.trigger.ID().String(), "dur_ms", wait.Milliseconds(), "err", err)
		if time.Since(begun) > mostWait {
			wait = leastWait
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}

// WaitApplied returns once the hub works by the given revision of the table of triggers, or a later one.
func (h *Hub) WaitApplied(ctx context.Context, revision uint64) error {
	return h.await(ctx, func() bool { return h.applied >= revision })
}

// WaitGone returns once the hub knows no trigger of that name.
func (h *Hub) WaitGone(ctx context.Context, id functions.Ref) error {
	return h.await(ctx, func() bool { return h.entries[id] == nil })
}

// await returns once is reports true, which it is asked under the lock.
func (h *Hub) await(ctx context.Context, is func() bool) error {
	for {
		h.mu.RLock()
		done, changed := is(), h.changed
		h.mu.RUnlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fault.Wrap(fault.CodeUnavailable, context.Cause(ctx), "waiting for the trigger to be taken over")
		}
	}
}

// Status tells how a trigger does; false where the hub knows none of that name.
func (h *Hub) Status(id functions.Ref) (v1.TriggerStatus, bool) {
	e := h.entry(id)
	if e == nil {
		return v1.TriggerStatus{}, false
	}
	return e.status(), true
}

func (h *Hub) entry(id functions.Ref) *entry {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.entries[id]
}
