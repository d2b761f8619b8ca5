package queue

import (
	"context"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tatami-faas/tatami/internal/bus"
)

// standing is how long the request that nobody waits for stands at the server before it is made anew.
const standing = time.Minute

// puller asks for the messages of one consumer. Its fields are guarded by the lane's mutex.
type puller struct {
	l       *lane
	subject string
	// slots brings answers to requests of slots, stand those to the standing request.
	// Both feed msgs, so that what the server sends is taken in its order.
	slots, stand           *nats.Subscription
	msgs                   chan *nats.Msg
	stop                   chan struct{}
	slotsInbox, standInbox string
	// asked counts the messages that slots asked for and got no answer to.
	asked    int
	standsAt time.Time
	stands   bool
	// pending is what the consumer had at the start.
	pending int
	// fresh is the last sequence of the stream when the consumer was there: what comes behind it is delivered by this consumer only, so
	// its count of deliveries is the whole truth.
	fresh uint64
	// anew says that the lane had a consumer before: an acknowledgement of what is delivered up to fresh may have been lost with it.
	anew bool
	gone bool
}

// newPuller makes the function's consumer and subscribes to its answers.
func (q *Queue) newPuller(ctx context.Context, l *lane) (*puller, error) {
	name := bus.ConsumerName(l.ref)
	c, err := q.bus.Consumer(ctx, jetstream.ConsumerConfig{
		Durable:       name,
		FilterSubject: bus.FunctionInvocations(l.ref),
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       q.cfg.AckWait,
		MaxDeliver:    -1,
		MaxAckPending: 2*q.cfg.MaxHeld + 16 + maxWaiting,
		// The stream is what lasts: a consumer made anew delivers what is left at once.
		MemoryStorage:     true,
		InactiveThreshold: 2*q.cfg.IdleAfter + 2*standing,
	})
	if err != nil {
		return nil, q.bus.Fault(err, "making the consumer of "+l.ref.String())
	}
	// Asked for after the consumer was made, not before.
	info, err := q.bus.Invocations().Info(ctx)
	if err != nil {
		return nil, q.bus.Fault(err, "reading the state of the queue")
	}
	nc := q.bus.Conn()
	p := &puller{
		l: l, subject: "$JS.API.CONSUMER.MSG.NEXT." + bus.StreamInvocations + "." + name,
		slotsInbox: nats.NewInbox(), standInbox: nats.NewInbox(),
		pending: int(c.CachedInfo().NumPending), fresh: info.State.LastSeq,
	}
	// As many as can be asked for at once, so that none is ever dropped.
	p.msgs, p.stop = make(chan *nats.Msg, 2*q.cfg.MaxHeld+maxAhead+16), make(chan struct{})
	if p.slots, err = nc.ChanSubscribe(p.slotsInbox+".*", p.msgs); err != nil {
		return nil, q.bus.Fault(err, "subscribing")
	}
	if p.stand, err = nc.ChanSubscribe(p.standInbox+".*", p.msgs); err != nil {
		_ = p.slots.Unsubscribe()
		return nil, q.bus.Fault(err, "subscribing")
	}
	q.work.Go(p.take)
	return p, nil
}

// take hands what comes to the lane, until the puller is closed.
func (p *puller) take() {
	for {
		select {
		case m := <-p.msgs:
			p.received(m, m.Sub == p.stand)
			continue
		default:
		}
		select {
		case m := <-p.msgs:
			p.received(m, m.Sub == p.stand)
		case <-p.stop:
			return
		}
	}
}

func (p *puller) close() {
	_ = p.slots.Unsubscribe()
	_ = p.stand.Unsubscribe()
	p.gone = true
	close(p.stop)
}

// ask requests a message for every slot that waits, and what is missing to have so many in hand beside them: with a slot's, or once half
// of them are missing. It keeps a request standing where that is wanted.
func (p *puller) ask(waiting, inHand, ahead int, stand bool) {
	if p.gone {
		return
	}
	n := waiting - p.asked
	if more := n + max(ahead-inHand, 0); n > 0 || 2*more > ahead {
		n = more
	}
	if n > 0 {
		p.asked += n
		size := strconv.Itoa(n)
		p.request(p.slotsInbox+"."+size, `{"batch":`+size+`,"no_wait":true}`)
	}
	// The answer that it timed out comes from the server; the second bound is for one that got lost.
	if stand && (!p.stands || time.Since(p.standsAt) > standing+5*time.Second) {
		p.stands, p.standsAt = true, time.Now()
		p.request(p.standInbox+".1", `{"batch":1,"expires":`+strconv.FormatInt(int64(standing), 10)+`}`)
	}
}

func (p *puller) request(inbox, body string) {
	if err := p.l.q.bus.Conn().PublishRequest(p.subject, inbox, []byte(body)); err != nil {
		p.gone = true
		p.l.wake()
	}
}

// received takes a message or the news that there is none.
func (p *puller) received(m *nats.Msg, stand bool) {
	l := p.l
	if status := m.Header.Get("Status"); status != "" && len(m.Data) == 0 {
		l.mu.Lock()
		p.status(m, status, stand)
		l.mu.Unlock()
		return
	}
	meta, err := m.Metadata()
	if err != nil {
		l.q.log.Error("a message of the queue has no metadata", "fn", l.ref.String(), "err", err)
		return
	}
	h := l.q.heldOf(l, m, meta)
	l.mu.Lock()
	defer l.mu.Unlock()
	if h != nil {
		h.again = h.again || p.anew && meta.Sequence.Stream <= p.fresh
		// What came from a schedule may have been cancelled before.
		h.fresh = meta.NumDelivered == 1 && meta.Sequence.Stream > p.fresh && h.attempt == 1 && m.Header.Get(bus.HeaderAttempt) == ""
	}
	if stand {
		p.stands = false
	} else {
		p.asked = max(p.asked-1, 0)
	}
	l.backlog = int(meta.NumPending)
	l.last = max(l.last, meta.Sequence.Stream)
	l.used = time.Now()
	if l.closed || p.gone {
		_ = l.q.bus.Conn().Publish(m.Reply, nak)
		return
	}
	if h != nil && l.q.hold(h) && l.mayRun(h) {
		l.holding++
		l.deliver(h)
	}
	l.step()
}

// status handles an answer that is no message. The lane's mutex is held.
func (p *puller) status(m *nats.Msg, status string, stand bool) {
	l := p.l
	if p.gone {
		return
	}
	none := false
	switch status {
	case "404", "408":
		none = true
	default:
		// The consumer is gone (409, 503) or the request was not understood: begin anew.
		l.q.log.Debug("the queue's consumer is made anew", "fn", l.ref.String(), "status", status, "description", m.Header.Get("Description"))
		p.gone = true
		l.wake()
		return
	}
	if stand {
		p.stands = false
	} else {
		n, err := strconv.Atoi(m.Header.Get("Nats-Pending-Messages"))
		if err != nil {
			// Answered before anything was delivered: the request's size is in its inbox.
			n, _ = strconv.Atoi(m.Subject[len(p.slotsInbox)+1:])
		}
		p.asked = max(p.asked-n, 0)
		if none {
			l.backlog = 0
		}
		l.releaseSlots(p.asked)
	}
	l.step()
}
