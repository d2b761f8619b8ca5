package queue

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
)

// What a consumer is told about a message.
var (
	ack        = []byte("+ACK")
	nak        = []byte("-NAK")
	inProgress = []byte("+WPI")
)

// held is a message in this process's hands, from its delivery until it is acknowledged or let go.
type held struct {
	lane  *lane
	id    functions.InvocationID
	tally *tally
	msg   *nats.Msg
	seq   uint64
	// again says that an attempt may have been made from this message before: it was delivered before, or lay there at the start.
	again bool
	// fresh says that nobody can have made an attempt of the invocation before: it is the first delivery of a first attempt that was
	// accepted while its consumer existed.
	fresh   bool
	attempt int
	// order is the hash of the invocation's ordering key; empty where it has none.
	order string
	// late is when the attempt may no longer start, zero before that was asked; inHand is when the lane took it in hand.
	late, inHand time.Time

	// Guarded by Queue.mu. cancelled says that somebody wants its end; stop closes the attempt's request, where there is one. reply is where the last delivery is acknowledged; since is when the attempt began; next is a further message
	// of the same invocation, which waits until this one is done.
	cancelled bool
	stop      context.CancelFunc
	// span is the attempt's context, where it has one of its own kind.
	span *span
	// hungUp says that the function was told that nobody waits.
	hungUp bool
	reply  string
	since  time.Time
	next   *held
}

func (q *Queue) heldOf(l *lane, m *nats.Msg, meta *nats.MsgMetadata) *held {
	id := functions.InvocationID(m.Subject[strings.LastIndexByte(m.Subject, '.')+1:])
	if _, ok := id.FunctionHash(); !ok {
		q.log.Error("a message of the queue has no invocation's id", "subject", m.Subject)
		return nil
	}
	attempt, err := strconv.Atoi(m.Header.Get(bus.HeaderAttempt))
	if err != nil {
		attempt = 1
	}
	return &held{
		lane: l, id: id, tally: q.tallyOf(l.ref), msg: m, seq: meta.Sequence.Stream, reply: m.Reply, attempt: attempt, order: m.Header.Get(bus.HeaderOrder),
		again: meta.NumDelivered > 1 || meta.Sequence.Stream <= q.restored,
	}
}

// deadline is when the attempt may no longer start.
func (h *held) deadline() time.Time {
	if h.msg.Data == nil {
		// It waited for its turn, and is read when it has a lease.
		return time.Now().Add(time.Minute)
	}
	if h.late.IsZero() {
		inv, err := decodeInvocation(h.msg.Data)
		if err != nil {
			// The attempt will tell.
			h.late = time.Now()
		} else {
			h.late = inv.Deadline
		}
	}
	return h.late
}

// hold registers a message. False: it is one that is held already, or it waits for another of its invocation.
func (q *Queue) hold(h *held) bool {
	h.tally.due(h.id)
	q.mu.Lock()
	defer q.mu.Unlock()
	cur := q.held[h.id]
	if cur == nil {
		q.held[h.id] = h
		return true
	}
	if cur.seq == h.seq {
		// It was delivered again while it is at work.
		cur.reply = h.reply
	} else if cur.next == nil || cur.next.seq == h.seq {
		h.again = true
		cur.next = h
	}
	return false
}

// drop takes the message out of this process's hands; one of the same invocation that waited comes next.
func (q *Queue) drop(h *held) {
	q.mu.Lock()
	next := h.next
	if next == nil {
		delete(q.held, h.id)
	} else {
		q.held[h.id] = next
	}
	q.mu.Unlock()
	h.lane.dropped()
	if next == nil {
		return
	}
	next.lane.mu.Lock()
	closed := next.lane.closed
	if !closed && next.lane.mayRun(next) {
		next.lane.holding++
		next.lane.deliver(next)
		next.lane.step()
	}
	next.lane.mu.Unlock()
	if closed {
		q.letGo(next)
	}
}

// ack acknowledges the message: it leaves the stream.
func (q *Queue) ack(h *held) {
	q.mu.Lock()
	reply := h.reply
	q.mu.Unlock()
	if err := q.bus.Conn().Publish(reply, ack); err != nil {
		q.log.Warn("a finished invocation could not be acknowledged, it is looked at again after a restart", "inv", string(h.id), "err", err)
	}
}

// letGo gives a message back unrun: it is delivered again, to whoever asks.
func (q *Queue) letGo(h *held) {
	q.mu.Lock()
	for m := h; m != nil; m = m.next {
		_ = q.bus.Conn().Publish(m.reply, nak)
	}
	delete(q.held, h.id)
	q.mu.Unlock()
	h.lane.dropped()
}

// extendLoop keeps what is in hand from being delivered again, until stop is closed.
func (q *Queue) extendLoop(stop <-chan struct{}) {
	t := time.NewTicker(q.cfg.AckWait / 3)
	defer t.Stop()
	for {
		select {
		case <-stop:
			return
		case <-t.C:
			q.extend()
		}
	}
}

// extend tells the server that the messages in hand are being worked on.
func (q *Queue) extend() {
	q.mu.Lock()
	replies := make([]string, 0, len(q.held))
	for _, h := range q.held {
		for ; h != nil; h = h.next {
			replies = append(replies, h.reply)
		}
	}
	q.mu.Unlock()
	for _, r := range replies {
		_ = q.bus.Conn().Publish(r, inProgress)
	}
}

// begin marks the start of the attempt, for lookups. False: the invocation is cancelled, and no attempt may begin.
func (q *Queue) begin(h *held) bool {
	h.tally.run(1)
	q.mu.Lock()
	h.cancelled = h.cancelled || q.cancelling[h.id] != nil
	begun := !h.cancelled
	if begun {
		h.since = time.Now()
	}
	q.mu.Unlock()
	if begun {
		if h.attempt == 1 {
			h.tally.begin()
		}
		q.notify(h.id)
	}
	return begun
}

// stoppable registers what closes the attempt's request. False: the invocation was cancelled meanwhile.
func (q *Queue) stoppable(h *held, stop context.CancelFunc) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	h.stop = stop
	return !h.cancelled
}

// unstoppable ends what stoppable began, and reports whether the invocation was cancelled, and whether no answer counts any more.
func (q *Queue) unstoppable(h *held) (cancelled, hungUp bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	h.stop, h.span = nil, nil
	return h.cancelled, h.hungUp
}

// paused undoes begin.
func (q *Queue) paused(h *held) {
	q.mu.Lock()
	h.since = time.Time{}
	q.mu.Unlock()
	h.tally.run(-1)
}
