package queue

import (
	"container/heap"
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
)

// The server delivers what is scheduled, but looks at most four times a second. So this process delivers what it knows of at its time, and the server is
// told a time that is later by Config.Backstop: it delivers what nobody else did. Storing the message and ending its schedule is one step at the
// server, which it makes only if the schedule is still the one that was read: whoever is first delivers, and nobody does twice.

const (
	// readAhead is how long before its time what is due is read, so that at its time nothing but one message is left to be sent.
	readAhead = 250 * time.Millisecond
	// readers is how many are read at the same time, maxReading how many are to be read, maxUnderWay how many are read and not delivered, and
	// maxReadBytes how large those may be together, but for what is being read.
	readers      = 16
	maxReading   = 64
	maxUnderWay  = 1024
	maxReadBytes = 16 << 20
)

// Headers with which a message ends the schedule that it comes from.
const (
	headerScheduler    = "Nats-Scheduler"
	headerScheduleNext = "Nats-Schedule-Next"
	schedulePurge      = "purge"
)

// ringer delivers what is due. Its fields are its goroutine's, but for storing.
type ringer struct {
	q *Queue
	// ask and got carry what is to be read and what was read; both hold as many as there may be.
	ask     chan *alarm
	got     chan *due
	reading int
	ready   dueHeap
	bytes   int
	// storing counts those sent to the server that it has not answered yet.
	storing atomic.Int64
}

// due is an invocation whose time comes; without a message where there is nothing to deliver.
type due struct {
	id  functions.InvocationID
	at  time.Time
	msg *nats.Msg
}

// alarmLoop delivers what is due until ctx ends.
func (q *Queue) alarmLoop(ctx context.Context) {
	r := &ringer{q: q, ask: make(chan *alarm, maxReading), got: make(chan *due, maxReading)}
	var work sync.WaitGroup
	defer work.Wait()
	defer close(r.ask)
	for range readers {
		work.Go(func() {
			for a := range r.ask {
				r.got <- r.read(ctx, a)
			}
		})
	}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		r.deliver(ctx)
		timer.Reset(r.askMore())
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-q.alarms.earlier:
		case d := <-r.got:
			r.take(d)
		}
	}
}

// askMore has those read whose time comes soon, as far as there is room, and says how long nothing is to be done.
func (r *ringer) askMore() time.Duration {
	room := min(maxReading-r.reading, maxUnderWay-r.reading-len(r.ready)-int(r.storing.Load()))
	if r.bytes > maxReadBytes {
		room = 0
	}
	now := time.Now()
	soon, next := r.q.alarms.due(now.Add(readAhead), room)
	for _, a := range soon {
		r.reading++
		r.ask <- a
	}
	wait := time.Hour
	if !next.IsZero() && room > len(soon) {
		wait = next.Add(-readAhead).Sub(now)
	}
	if len(r.ready) > 0 {
		wait = min(wait, r.ready[0].at.Sub(now))
	}
	return max(wait, 0)
}

// take keeps what was read until its time.
func (r *ringer) take(d *due) {
	r.reading--
	if d.msg == nil {
		return
	}
	heap.Push(&r.ready, d)
	r.bytes += len(d.msg.Data)
}

// deliver sends what is due to the server.
func (r *ringer) deliver(ctx context.Context) {
	for now := time.Now(); len(r.ready) > 0 && !r.ready[0].at.After(now); {
		d := heap.Pop(&r.ready).(*due)
		r.bytes -= len(d.msg.Data)
		r.storing.Add(1)
		r.q.bus.StoreThen(d.msg, func(_ uint64, err error) {
			r.left(ctx, d.id, err)
			r.storing.Add(-1)
			r.q.alarms.poke()
		})
	}
}

// left notes what is left to the server to deliver. A conflict says that it was cancelled, delivered or put off meanwhile.
func (r *ringer) left(ctx context.Context, id functions.InvocationID, err error) {
	if err != nil && !bus.IsConflict(err) && ctx.Err() == nil {
		r.q.log.Warn("an invocation that is due is left to the server to deliver", "inv", string(id), "err", err)
	}
}

// read makes the message of an invocation from its schedule, unless it was cancelled, delivered or put off meanwhile.
func (r *ringer) read(ctx context.Context, a *alarm) *due {
	d := &due{id: a.id, at: a.at}
	scheduled, _ := bus.ScheduledSubject(a.id)
	s, err := r.q.bus.Invocations().GetLastMsgForSubject(ctx, scheduled)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return d
	}
	if err != nil {
		r.left(ctx, a.id, r.q.bus.Fault(err, "reading what is due"))
		return d
	}
	if at, ok := dueOf(s.Header); !ok || at.After(a.at) {
		// It was put off, and has another alarm.
		return d
	}
	d.msg = &nats.Msg{Subject: s.Header.Get(bus.HeaderScheduleTarget), Data: s.Data, Header: nats.Header{
		headerScheduler: {scheduled}, headerScheduleNext: {schedulePurge},
		// Nothing happens where the schedule is no longer the one that was read.
		jetstream.ExpectedLastSubjSeqHeader: {strconv.FormatUint(s.Sequence, 10)}, jetstream.ExpectedLastSubjSeqSubjHeader: {scheduled},
	}}
	for _, k := range [...]string{bus.HeaderAttempt, bus.HeaderOrder} {
		if v := s.Header[k]; len(v) > 0 {
			d.msg.Header[k] = v
		}
	}
	return d
}

// dueOf reads when a scheduled message is due; false where it does not say.
func dueOf(h nats.Header) (time.Time, bool) {
	at, err := time.Parse(time.RFC3339Nano, h.Get(bus.HeaderDue))
	return at, err == nil
}

// dueHeap has the earliest first.
type dueHeap []*due

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h dueHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push is for the package heap.
func (h *dueHeap) Push(x any) { *h = append(*h, x.(*due)) }

// Pop is for the package heap.
func (h *dueHeap) Pop() any {
	last := len(*h) - 1
	d := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return d
}
