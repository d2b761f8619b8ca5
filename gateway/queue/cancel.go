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

// Cancel ends an invocation. One that waits ends at once, and no attempt of it begins any more; of one that runs the request is closed. What the
// function makes of that is its own, unless its instances run one invocation at a time: then one that goes on for longer than Config.CancelGrace is
// stopped with its instance, so that the next one does not wait behind it. It returns where the invocation stands then: it is cancelled, or still running where the
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

// stopper closes the request of an attempt that is cancelled.
type stopper struct {
	q     *Queue
	h     *held
	close context.CancelFunc
	// lease is set where an instance runs one invocation at a time, grace once the function was told.
	lease Stoppable
	grace *time.Timer
	// gaveUp says that the function goes on, as far as is known. Both are guarded by Queue.mu.
	gaveUp bool
}

func (q *Queue) stopperOf(h *held, lease Lease, concurrency int, closeRequest context.CancelFunc) *stopper {
	s := &stopper{q: q, h: h, close: closeRequest}
	if concurrency == 1 {
		s.lease, _ = lease.(Stoppable)
	}
	return s
}

// stop closes the request, or tells the function first that nobody waits.
func (s *stopper) stop() {
	if s.lease == nil {
		s.close()
		return
	}
	s.q.mu.Lock()
	if s.h.hungUp {
		s.q.mu.Unlock()
		return
	}
	// From here on an answer says that the function has ended, and is no result.
	s.h.hungUp = true
	s.q.mu.Unlock()
	switch told, sent := s.lease.HangUp(); {
	case told:
	case sent:
		s.giveUp()
		return
	default:
		s.close()
		return
	}
	s.q.mu.Lock()
	s.grace = time.AfterFunc(s.q.cfg.CancelGrace, s.giveUp)
	s.q.mu.Unlock()
}

func (s *stopper) giveUp() {
	s.q.mu.Lock()
	s.gaveUp = true
	s.q.mu.Unlock()
	s.close()
}

// settle follows the end of the round trip, while the slot is held: what goes on is stopped.
func (s *stopper) settle() {
	s.q.mu.Lock()
	gaveUp := s.gaveUp
	if s.grace != nil {
		s.grace.Stop()
	}
	s.q.mu.Unlock()
	if !gaveUp {
		return
	}
	s.q.log.Info("an instance goes on with a cancelled invocation and is stopped", "inv", string(s.h.id), "fn", s.h.lane.ref.String())
	if err := s.lease.End("it went on with an invocation that was cancelled"); err != nil {
		s.q.log.Warn("an instance that goes on with a cancelled invocation is not stopped", "inv", string(s.h.id), "err", err)
	}
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
	if inv, err = decodeInvocation(m.Data); err != nil {
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
	if won {
		q.tellEnd(&inv, &final)
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
	q.alarms.unset(id)
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
	h := q.held[id]
	alone := won && !c.settled && h == nil
	c.settled = c.settled || alone
	if won {
		// It was delivered meanwhile, as one that nobody can have ended: it waits for a lease, or is about to begin.
		for m := h; m != nil; m = m.next {
			m.cancelled = true
		}
	}
	q.mu.Unlock()
	if won && h != nil {
		h.lane.yield(h)
	}
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
