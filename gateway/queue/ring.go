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
// told a time that is later by Config.Backstop: it delivers what nobody else did. The message is stored only if the schedule is still the one that was
// read, and the schedule is removed when the message is on disk. The server would do both in one step, but not on disk: it removes the file of a block
// that is empty, which may be known there before the message is.

const (
	// readAhead is how long before its time what is due is read, so that at its time nothing but one message is left to be sent.
	readAhead = 250 * time.Millisecond
	// readers is how many are read at the same time, maxReading how many are to be read, maxUnderWay how many are read and still have their
	// schedule, and maxReadBytes how large those may be together that are not sent, but for what is being read.
	readers      = 16
	clearers     = 4
	maxReading   = 64
	maxUnderWay  = 1024
	maxReadBytes = 16 << 20
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
	// storing counts those sent to the server whose schedule may be there still.
	storing atomic.Int64
	// stored carries those that are on disk; it holds as many as may be under way.
	stored chan *due
}

// due is an invocation whose time comes; without a message where there is nothing to deliver.
type due struct {
	id  functions.InvocationID
	at  time.Time
	msg *nats.Msg
	// schedule is the sequence of the message that says when.
	schedule uint64
}

// alarmLoop delivers what is due until ctx ends.
func (q *Queue) alarmLoop(ctx context.Context) {
	r := &ringer{q: q, ask: make(chan *alarm, maxReading), got: make(chan *due, maxReading), stored: make(chan *due, maxUnderWay+maxReading)}
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
	for range clearers {
		work.Go(func() { r.clear(ctx) })
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
		r.q.bus.StoreThen(d.msg, func(_ uint64, err error) { r.sync(ctx, d, err) })
	}
}

// sync follows the server's word on a message: it is to be on disk before its schedule goes.
func (r *ringer) sync(ctx context.Context, d *due, err error) {
	if err != nil {
		r.left(ctx, d.id, err)
		r.done()
		return
	}
	d.msg = nil
	r.q.bus.BarrierThen(func(err error) {
		if err != nil {
			// The store has failed, and Run ends.
			r.done()
			return
		}
		r.stored <- d
	}, bus.StreamInvocations)
}

// done follows the end of a delivery.
func (r *ringer) done() {
	r.storing.Add(-1)
	r.q.alarms.poke()
}

// clear removes the schedules of what is on disk, until ctx ends. One that stays is found at the next start.
func (r *ringer) clear(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case d := <-r.stored:
			// By its sequence: to remove what a subject has the server looks through all blocks. A cancellation may have removed it meanwhile.
			err := r.q.bus.Invocations().DeleteMsg(ctx, d.schedule)
			if err != nil && !errors.Is(err, jetstream.ErrMsgDeleteUnsuccessful) && ctx.Err() == nil {
				r.q.log.Warn("the schedule of an invocation that is delivered stays for now", "inv", string(d.id), "err", err)
			}
			r.done()
		}
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
	d.schedule = s.Sequence
	if delivered, err := r.delivered(ctx, d); delivered || err != nil {
		r.left(ctx, a.id, err)
		return d
	}
	d.msg = &nats.Msg{Subject: s.Header.Get(bus.HeaderScheduleTarget), Data: s.Data, Header: nats.Header{
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

// delivered reports whether an earlier process has stored the message and not removed the schedule, and has that removed.
func (r *ringer) delivered(ctx context.Context, d *due) (bool, error) {
	if d.schedule > r.q.restored {
		return false, nil
	}
	waiting, _ := bus.InvocationSubject(d.id)
	seq, err := r.q.lastOf(ctx, waiting)
	if err != nil || seq < d.schedule {
		return false, err
	}
	r.storing.Add(1)
	r.sync(ctx, d, nil)
	return true, nil
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
