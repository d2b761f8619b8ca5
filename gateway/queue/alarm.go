package queue

import (
	"container/heap"
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
)

// The server delivers what is scheduled, but looks at most four times a second. So this process delivers what it knows of at its time, and the server is
// told a time that is later by Config.Backstop: it delivers what nobody else did. Storing the message and ending its schedule is one step at the
// server, which it makes only if the schedule is still the one that was read: whoever is first delivers, and nobody does twice.

const (
	// ringing is how many messages are delivered at the same time, ringBatch how many in a row before the clock is looked at again.
	ringing   = 16
	ringBatch = 1024
)

// Headers with which a message ends the schedule that it comes from.
const (
	headerScheduler    = "Nats-Scheduler"
	headerScheduleNext = "Nats-Schedule-Next"
	schedulePurge      = "purge"
)

// alarm is when an invocation is due.
type alarm struct {
	id functions.InvocationID
	at time.Time
	// index is its place in the heap.
	index int
}

// alarms are the invocations that wait for a time. The zero value has none.
type alarms struct {
	mu   sync.Mutex
	byID map[functions.InvocationID]*alarm
	heap alarmHeap
	// earlier is sent to when the first alarm has become another.
	earlier chan struct{}
}

func newAlarms() *alarms {
	return &alarms{byID: map[functions.InvocationID]*alarm{}, earlier: make(chan struct{}, 1)}
}

// set makes an invocation due at a time, instead of the one before if it had one.
func (a *alarms) set(id functions.InvocationID, at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if cur := a.byID[id]; cur != nil {
		cur.at = at
		heap.Fix(&a.heap, cur.index)
	} else {
		cur = &alarm{id: id, at: at}
		a.byID[id] = cur
		heap.Push(&a.heap, cur)
	}
	if a.heap[0].id == id {
		select {
		case a.earlier <- struct{}{}:
		default:
		}
	}
}

// unset forgets an invocation.
func (a *alarms) unset(id functions.InvocationID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if cur := a.byID[id]; cur != nil {
		heap.Remove(&a.heap, cur.index)
		delete(a.byID, id)
	}
}

// due takes out what is due, up to ringBatch of it, and says when the next one is; zero: there is none.
func (a *alarms) due(now time.Time) (ids []functions.InvocationID, next time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for len(a.heap) > 0 {
		first := a.heap[0]
		if first.at.After(now) || len(ids) == ringBatch {
			return ids, first.at
		}
		heap.Pop(&a.heap)
		delete(a.byID, first.id)
		ids = append(ids, first.id)
	}
	return ids, time.Time{}
}

// alarmLoop delivers what is due until ctx ends.
func (q *Queue) alarmLoop(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for ctx.Err() == nil {
		ids, next := q.alarms.due(time.Now())
		q.ring(ctx, ids)
		wait := time.Hour
		if !next.IsZero() {
			wait = time.Until(next)
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-q.alarms.earlier:
		}
	}
}

// ring delivers invocations that are due. What it cannot deliver the server does.
func (q *Queue) ring(ctx context.Context, ids []functions.InvocationID) {
	var group errgroup.Group
	group.SetLimit(ringing)
	for _, id := range ids {
		group.Go(func() error {
			if err := q.deliverDue(ctx, id); err != nil && ctx.Err() == nil {
				q.log.Warn("an invocation that is due is left to the server to deliver", "inv", string(id), "err", err)
			}
			return nil
		})
	}
	_ = group.Wait()
}

// deliverDue turns the schedule of an invocation into its message, unless it was cancelled, delivered or put off meanwhile.
func (q *Queue) deliverDue(ctx context.Context, id functions.InvocationID) error {
	scheduled, _ := bus.ScheduledSubject(id)
	s, err := q.bus.Invocations().GetLastMsgForSubject(ctx, scheduled)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil
	}
	if err != nil {
		return q.bus.Fault(err, "reading what is due")
	}
	if at, ok := dueOf(s.Header); !ok || at.After(time.Now()) {
		return nil
	}
	m := &nats.Msg{Subject: s.Header.Get(bus.HeaderScheduleTarget), Data: s.Data, Header: nats.Header{
		headerScheduler: {scheduled}, headerScheduleNext: {schedulePurge},
		// Nothing happens where the schedule is no longer the one that was read.
		jetstream.ExpectedLastSubjSeqHeader: {strconv.FormatUint(s.Sequence, 10)}, jetstream.ExpectedLastSubjSeqSubjHeader: {scheduled},
	}}
	for _, k := range [...]string{bus.HeaderAttempt, bus.HeaderOrder} {
		if v := s.Header[k]; len(v) > 0 {
			m.Header[k] = v
		}
	}
	if _, err = q.bus.Store(ctx, m); bus.IsConflict(err) {
		return nil
	}
	return err
}

// dueOf reads when a scheduled message is due; false where it does not say.
func dueOf(h nats.Header) (time.Time, bool) {
	at, err := time.Parse(time.RFC3339Nano, h.Get(bus.HeaderDue))
	return at, err == nil
}

// alarmHeap has the earliest alarm first.
type alarmHeap []*alarm

func (h alarmHeap) Len() int           { return len(h) }
func (h alarmHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h alarmHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push is for the package heap.
func (h *alarmHeap) Push(x any) {
	a := x.(*alarm)
	a.index = len(*h)
	*h = append(*h, a)
}

// Pop is for the package heap.
func (h *alarmHeap) Pop() any {
	last := len(*h) - 1
	a := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return a
}
