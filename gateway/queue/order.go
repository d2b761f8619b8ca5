package queue

import (
	"context"
	"errors"
	"slices"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tatami-faas/tatami/functions"
)

const (
	// maxWaiting is how many messages of one lane wait for others with their ordering key. With more of them the lane takes none until there
	// are fewer.
	maxWaiting = 10_000
	// keptWaiting is the largest message that is kept while it waits; a larger one is read anew when it is its turn.
	keptWaiting = 4 << 10
)

// chain is what is known of an ordering key: the invocation that has its turn, until it has ended, and the messages behind it in their order.
type chain struct {
	turn    functions.InvocationID
	waiting []*held
}

// orderName is the ordering key as a message's header has it.
func orderName(key string) string {
	if key == "" {
		return ""
	}
	return hashOf(key)
}

// mayRun reports whether a message has no ordering key or its turn; else it waits. l.mu is held.
func (l *lane) mayRun(h *held) bool {
	if h.order == "" {
		return true
	}
	c := l.chains[h.order]
	switch {
	case c == nil:
		l.chains[h.order] = &chain{turn: h.id}
		return true
	case c.turn == h.id:
		return true
	}
	c.waiting = append(c.waiting, h)
	l.waiting++
	if len(h.msg.Data) > keptWaiting {
		l.q.mu.Lock()
		h.msg = &nats.Msg{Subject: h.msg.Subject, Header: h.msg.Header}
		l.q.mu.Unlock()
	}
	return false
}

// endTurn lets the next invocation with the ordering key run, if the one that has ended had its turn.
func (l *lane) endTurn(order string, id functions.InvocationID) {
	if order == "" {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.chains[order]
	switch {
	case c == nil || c.turn != id:
		return
	case len(c.waiting) == 0:
		delete(l.chains, order)
		return
	}
	h := c.waiting[0]
	c.waiting = c.waiting[1:]
	c.turn = h.id
	l.waiting--
	if l.closed {
		return
	}
	l.holding++
	l.deliver(h)
	l.step()
}

// reread reads a message that was too large to be kept while it waited. False: it cannot be read, or is gone.
func (q *Queue) reread(h *held) bool {
	if h.msg.Data != nil {
		return true
	}
	var m *jetstream.RawStreamMsg
	ok := q.insist(h, "reading an invocation whose turn it is", func(ctx context.Context) error {
		var err error
		if m, err = q.bus.Invocations().GetMsg(ctx, h.seq); errors.Is(err, jetstream.ErrMsgNotFound) {
			err = nil
		}
		return err
	})
	if ok && m != nil {
		q.mu.Lock()
		h.msg = &nats.Msg{Subject: h.msg.Subject, Header: h.msg.Header, Data: m.Data}
		q.mu.Unlock()
	}
	return ok && m != nil
}

// leaveChain takes a message that waits for its turn out of its chain, and reports whether it did. l.mu is held.
func (l *lane) leaveChain(h *held) bool {
	c := l.chains[h.order]
	if c == nil {
		return false
	}
	i := slices.Index(c.waiting, h)
	if i < 0 {
		return false
	}
	c.waiting = slices.Delete(c.waiting, i, i+1)
	l.waiting--
	l.holding++
	return true
}

// leaveChains returns the messages that wait for their turn, of which none is to run any more. l.mu is held.
func (l *lane) leaveChains() (out []*held) {
	for _, c := range l.chains {
		out = append(out, c.waiting...)
		c.waiting = nil
	}
	l.waiting = 0
	return out
}
