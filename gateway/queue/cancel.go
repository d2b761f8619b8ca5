package queue

import (
	"context"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// cancelPatience is how long Cancel waits for the end of an attempt whose request it closed.
const cancelPatience = 10 * time.Second

// errCancelled is how an attempt ends that was cancelled.
var errCancelled = fault.New(fault.CodeConflict, "the invocation was cancelled")

// cancellation is a Cancel under way of an invocation that was in nobody's hands. Guarded by Queue.mu.
type cancellation struct {
	callers int
	// settled says that a message of it was taken in hand meanwhile and is done with.
	settled bool
}

// Cancel ends an invocation. One that waits ends at once, and no attempt of it begins any more; of one that runs the request is closed, and
// what the function makes of that is its own. It returns where the invocation stands then: it is cancelled, or still running where the
// end of the attempt takes longer than ten seconds. An invocation that ended otherwise gives a conflict. To cancel twice is to cancel once.
func (q *Queue) Cancel(ctx context.Context, id functions.InvocationID) (Status, error) {
	if err := q.waitReady(ctx); err != nil {
		return Status{}, err
	}
	if _, ok := id.FunctionHash(); !ok {
		return Status{}, notFound(id)
	}
	q.mu.Lock()
	h := q.held[id]
	if h == nil {
		c := q.cancelling[id]
		if c == nil {
			c = &cancellation{}
			q.cancelling[id] = c
		}
		c.callers++
		q.mu.Unlock()
		st, err := q.cancelStored(ctx, id, c)
		return judgeCancelled(st, err)
	}
	h.cancelled = true
	stop := h.stop
	q.mu.Unlock()
	if stop != nil {
		stop()
	}
	h.lane.yield(h)
	return judgeCancelled(q.Lookup(ctx, id, cancelPatience))
}

func judgeCancelled(st Status, err error) (Status, error) {
	if err == nil && st.State.Terminal() && st.State != functions.StateCancelled {
		err = fault.New(fault.CodeConflict, "%s cannot be cancelled: it is %s", st.ID, st.State)
	}
	return st, err
}

// cancelStored cancels an invocation that lies in the stream. While c is registered, no attempt of it begins.
func (q *Queue) cancelStored(ctx context.Context, id functions.InvocationID, c *cancellation) (Status, error) {
	var inv functions.Invocation
	won := false
	defer func() { q.endCancel(id, c, &inv, won) }()
	m, rec, err := q.find(ctx, id)
	if err != nil {
		return Status{}, err
	}
	if rec != nil {
		return ended(*rec), nil
	}
	if inv, err = bus.Decode[functions.Invocation](m.Data); err != nil {
		return Status{}, err
	}
	final := functions.Result{
		Schema: functions.Schema, ID: id, Namespace: inv.Namespace, Function: inv.Function, State: functions.StateCancelled,
		Reason: errCancelled.Message, Attempts: append([]functions.Attempt{}, inv.History...), Accepted: inv.Accepted, Finished: time.Now().UTC(),
	}
	_, err = q.bus.Results().Create(ctx, bus.ResultKey(id), final)
	if fault.Is(err, fault.CodeConflict) {
		final, _, err = q.bus.Results().Get(ctx, bus.ResultKey(id))
	} else {
		won = err == nil
	}
	if err == nil {
		err = q.bus.Barrier(ctx, q.bus.Results().Stream())
	}
	if err != nil {
		return Status{}, err
	}
	if final.State == functions.StateCancelled {
		if err := q.clear(ctx, id); err != nil {
			// The record stands: whoever is delivered the message finds it.
			q.log.Warn("a cancelled invocation stays in the queue until it is its turn", "inv", string(id), "err", err)
		}
	}
	return ended(final), nil
}

// clear takes an invocation out of the stream: its schedule first, so that nothing is delivered from it any more.
func (q *Queue) clear(ctx context.Context, id functions.InvocationID) error {
	scheduled, _ := bus.ScheduledSubject(id)
	waiting, _ := bus.InvocationSubject(id)
	for _, subject := range []string{scheduled, waiting} {
		if err := q.bus.Invocations().Purge(ctx, jetstream.WithPurgeSubject(subject)); err != nil {
			return q.bus.Fault(err, "removing the invocation from the queue")
		}
	}
	return nil
}

// endCancel lets attempts look at the record again, and counts the invocation as ended where no message in hand does.
func (q *Queue) endCancel(id functions.InvocationID, c *cancellation, inv *functions.Invocation, won bool) {
	hash, _ := id.FunctionHash()
	q.mu.Lock()
	l := q.lanes[hash]
	q.mu.Unlock()
	if l != nil && won {
		l.unsure()
	}
	q.mu.Lock()
	if c.callers--; c.callers == 0 {
		delete(q.cancelling, id)
	}
	alone := won && !c.settled && q.held[id] == nil
	c.settled = c.settled || alone
	q.mu.Unlock()
	if alone {
		if l != nil {
			l.endTurn(orderName(inv.OrderingKey), id)
		}
		q.tallyOf(inv.Ref()).ended(id)
		if inv.BodyRef != nil {
			q.removeBody(inv.BodyRef)
		}
	}
	q.notify(id)
}

// yield runs a cancelled message out of the lane's hand, where it waits for a lease.
func (l *lane) yield(h *held) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.leaveChain(h) {
		l.q.goAttempt(func() { l.q.attempt(l, h, nil, errCancelled) })
		return
	}
	for i, m := range l.hand {
		if m == h {
			l.hand = append(l.hand[:i:i], l.hand[i+1:]...)
			l.q.goAttempt(func() { l.q.attempt(l, h, nil, errCancelled) })
			return
		}
	}
}

// unsure makes the lane read the record of whatever it is delivered of what is stored now: an invocation may have been ended without a
// message in hand, and what was its message may be on its way. What waits is asked for anew.
func (l *lane) unsure() {
	info, err := l.q.bus.Invocations().Info(l.q.alive)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pull != nil {
		if err != nil {
			// Not known: nothing is taken for fresh until the consumer is made anew.
			l.pull.gone = true
			l.wake()
			return
		}
		l.pull.fresh = max(l.pull.fresh, info.State.LastSeq)
	}
	l.backlog = max(l.backlog-1, 0)
	l.step()
}
