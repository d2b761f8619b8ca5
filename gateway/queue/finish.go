package queue

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// finish writes what follows from an attempt and acknowledges the message then. What it cannot write, it leaves unacknowledged. True: it goes on
// without the caller, and calls concluded at its end.
func (q *Queue) finish(h *held, inv *functions.Invocation, o *outcome) (goesOn bool) {
	if o.verdict == retry {
		switch wait, ok := q.next(h, inv, o); {
		case ok:
			q.reschedule(h, inv, o, wait)
			return false
		default:
			o.verdict = died
		}
	}
	e := &ending{q: q, h: h, inv: inv, rec: q.recordOf(inv, o)}
	if e.rec.State == functions.StateSucceeded && !q.handOn(h, inv, &e.rec) {
		return false
	}
	var err error
	if e.data, err = encodeResult(&e.rec); err != nil {
		q.log.Error("a result cannot be encoded, the attempt is made again", "inv", string(inv.ID), "err", err)
		return false
	}
	if e.plain() {
		e.begin()
		return true
	}
	e.write()
	return false
}

// recordOf is the terminal record of an invocation.
func (q *Queue) recordOf(inv *functions.Invocation, o *outcome) functions.Result {
	rec := functions.Result{
		Schema: functions.Schema, ID: inv.ID, Namespace: inv.Namespace, Function: inv.Function,
		Reason: o.reason, Attempts: inv.History, Accepted: inv.Accepted, Finished: time.Now().UTC(),
	}
	if !o.attempt.Ended.IsZero() {
		rec.Attempts = append(rec.Attempts, o.attempt)
	}
	if rec.Attempts == nil {
		rec.Attempts = []functions.Attempt{}
	}
	if o.answered {
		rec.Status, rec.Header, rec.Body, rec.BodyRef = o.status, o.header, o.body, o.bodyRef
	}
	switch o.verdict {
	case succeeded:
		rec.State = functions.StateSucceeded
	case expired:
		rec.State = functions.StateExpired
		if _, _, delivery := inv.Ref().Delivers(); delivery {
			// What could not be delivered is kept, whatever the reason.
			rec.State = functions.StateDead
		}
	case cancelled:
		rec.State, rec.Reason = functions.StateCancelled, errCancelled.Message
	default:
		rec.State = functions.StateDead
	}
	if rev := q.liveOf(inv.Ref()); rev != nil && rev.Config.Queue.KeepRequests {
		asked := *inv
		asked.History = nil
		rec.Request = &asked
	}
	return rec
}

// handOn tells of an answer before it is final; false: it could not be done, and the message is left to be delivered again.
func (q *Queue) handOn(h *held, inv *functions.Invocation, rec *functions.Result) bool {
	if q.onSuccess == nil {
		return true
	}
	ending := false
	done := q.insist(h, "handing the answer on", func(ctx context.Context) error {
		err := q.onSuccess(ctx, inv, rec)
		// A process that ends takes no more work, not even its own: the next one does.
		if ending = fault.Is(err, fault.CodeDraining); ending {
			return nil
		}
		return err
	})
	return done && !ending
}

// settle completes an invocation whose terminal record is written: the dead letter, what goes to a destination, the barrier, the acknowledgement.
// First says that the record has just been written here.
func (q *Queue) settle(h *held, inv *functions.Invocation, rec *functions.Result, first bool) {
	streams := []string{q.bus.Results().Stream()}
	if rec.BodyRef != nil {
		streams = append(streams, q.bus.Bodies().Stream())
	}
	dead := rec.State == functions.StateDead
	if dead {
		streams = append(streams, bus.StreamDead)
		if !q.insist(h, "storing the dead letter", func(ctx context.Context) error { return q.bury(ctx, inv, rec) }) {
			return
		}
	}
	onward, ok := q.handRecordOn(h, inv, rec, first)
	if !ok {
		return
	}
	if len(onward) > 0 {
		streams = append(streams, bus.StreamInvocations)
	}
	if !q.sync(h, streams...) {
		return
	}
	q.settled(h, inv, rec)
	for _, out := range onward {
		q.arrived(out)
	}
	if inv.BodyRef != nil && !dead && rec.Request == nil {
		q.removeBody(inv.BodyRef)
	}
}

// settled follows the barrier: what the invocation came to is on disk. It does not wait.
func (q *Queue) settled(h *held, inv *functions.Invocation, rec *functions.Result) {
	q.ack(h)
	q.tellEnd(inv, rec)
	q.mu.Lock()
	last := h.next == nil
	if c := q.cancelling[h.id]; c != nil && last {
		last = !c.settled
		c.settled = true
	}
	q.mu.Unlock()
	if last {
		h.tally.ended(h.id)
	}
	h.lane.endTurn(h.order, h.id)
}

// bury stores the dead letter unless it is there.
func (q *Queue) bury(ctx context.Context, inv *functions.Invocation, rec *functions.Result) error {
	subject, _ := bus.DeadSubject(inv.ID)
	if seq, err := q.lastDead(ctx, subject); err != nil || seq > 0 {
		return err
	}
	letter := functions.DeadLetter{Schema: functions.Schema, Invocation: *inv, Reason: rec.Reason, Died: rec.Finished}
	letter.Invocation.History = rec.Attempts
	data, err := json.Marshal(&letter)
	if err != nil {
		return fmt.Errorf("encoding the dead letter: %w", err)
	}
	return q.publish(ctx, &nats.Msg{Subject: subject, Data: data, Header: nats.Header{}}, string(inv.ID))
}

// lostWait is the wait before an attempt is made again whose worker vanished.
const lostWait = 100 * time.Millisecond

// next says how long to wait before the next attempt, or that there is none.
func (q *Queue) next(h *held, inv *functions.Invocation, o *outcome) (time.Duration, bool) {
	retries := functions.DefaultRetries
	// The configuration that counts is today's: a deploy may have changed it while the invocation waited.
	if rev, err := q.run.Lookup(q.alive, inv.Ref()); err == nil && rev.Config.Queue.Retries != nil {
		retries = *rev.Config.Queue.Retries
	}
	if inv.Attempt > retries {
		return 0, false
	}
	wait := q.backoff(inv.Attempt)
	if o.attempt.Error == string(fault.CodeUnavailable) {
		// Its worker vanished: that says nothing against the function, which runs elsewhere.
		wait = min(wait, lostWait)
	}
	wait = max(wait, o.retryAfter, h.tally.retry())
	// What cannot start in time has failed now: waiting would only turn a known reason into "expired".
	return wait, o.attempt.Ended.Add(wait).Before(inv.Deadline)
}

// backoff is the wait after the n-th attempt: it doubles each time, give or take a fifth.
func (q *Queue) backoff(n int) time.Duration {
	d := q.cfg.BackoffMax
	if shift := n - 1; shift < 30 {
		d = min(q.cfg.BackoffBase<<shift, d)
	}
	return time.Duration(float64(d) * (0.8 + 0.4*rand.Float64()))
}

// reschedule has the server deliver the next attempt at its time, and acknowledges this one's message.
func (q *Queue) reschedule(h *held, inv *functions.Invocation, o *outcome, wait time.Duration) {
	again := *inv
	again.Attempt++
	again.History = append(again.History, o.attempt)
	again.NotBefore = o.attempt.Ended.Add(wait)
	m, err := q.messageOf(&again)
	if err != nil {
		q.log.Error("a retry cannot be encoded, the attempt is made again", "inv", string(inv.ID), "err", err)
		return
	}
	ok := q.insist(h, "storing the retry", func(ctx context.Context) error {
		return q.publish(ctx, m, string(inv.ID)+"/"+strconv.Itoa(again.Attempt))
	})
	if !ok {
		return
	}
	h.tally.schedule(h.id)
	if !q.sync(h, bus.StreamInvocations) {
		return
	}
	q.ack(h)
	q.alarms.set(h.id, again.NotBefore)
	if o.bodyRef != nil {
		q.removeBody(o.bodyRef)
	}
}

// sync waits for the disk; false: it failed, and nothing may be acknowledged any more.
func (q *Queue) sync(h *held, streams ...string) bool {
	if err := q.bus.Barrier(q.alive, streams...); err != nil {
		q.notSynced(h, err)
		return false
	}
	return true
}

func (q *Queue) notSynced(h *held, err error) {
	q.log.Error("an invocation stays in the queue: its result may not be on disk", "inv", string(h.id), "err", err)
}

// insist tries until it succeeds, or this process ends, or the store failed.
func (q *Queue) insist(h *held, what string, op func(context.Context) error) bool {
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		err := op(q.alive)
		if err == nil {
			return true
		}
		if q.alive.Err() != nil {
			return false
		}
		q.log.Warn("the queue's store failed, trying again", "doing", what, "inv", string(h.id), "err", err)
		select {
		case <-time.After(wait):
		case <-q.alive.Done():
			return false
		case <-q.bus.Failed():
			return false
		}
	}
}

// removeBody deletes a body that no record names any more; the sweep takes what this misses.
func (q *Queue) removeBody(ref *functions.BodyRef) {
	if err := q.bus.Bodies().Delete(q.alive, ref.Object); err != nil {
		q.log.Warn("a body stays until the next sweep", "object", ref.Object, "err", err)
	}
}
