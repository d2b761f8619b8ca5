package queue

import (
	"slices"
	"time"

	"github.com/tatami-faas/tatami/functions"
)

// gathering is a batch that has its slot and waits for messages. Its fields are guarded by the lane's mutex.
type gathering struct {
	got []*held
	// most is how many there are to be.
	most int
	// begun is closed with the first message, done when there are all, or when there are none.
	begun, done chan struct{}
}

// gather returns the messages of a batch: those in hand, and those that come within the batch's window of the first, as many as it may have; none
// where there are none. One whose attempt is not the first goes alone. l.mu is held, and released.
func (l *lane) gather(b functions.Batch) []*held {
	l.paced()
	if len(l.hand) > 0 && l.hand[0].attempt > 1 {
		h := l.hand[0]
		l.hand = l.hand[1:]
		l.step()
		l.mu.Unlock()
		return []*held{h}
	}
	g := &gathering{most: b.Size, begun: make(chan struct{}), done: make(chan struct{})}
	l.gathers = append(l.gathers, g)
	l.hand = slices.DeleteFunc(l.hand, func(h *held) bool {
		return h.attempt == 1 && slices.Contains(l.gathers, g) && l.join(g, h)
	})
	window := b.Window.Std()
	if window == 0 && l.backlog > 0 {
		// What waits in the stream comes in one answer, at once.
		window = batchPatience
	}
	l.step()
	if len(g.got) == 0 && slices.Contains(l.gathers, g) && (l.pull == nil || l.closed) {
		l.forgo(g)
	}
	l.mu.Unlock()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-g.begun:
		timer.Reset(window)
	case <-g.done:
	}
	select {
	case <-timer.C:
	case <-g.done:
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gathers = slices.DeleteFunc(l.gathers, func(o *gathering) bool { return o == g })
	return g.got
}

// batchPatience is how long a batch without a window waits for what is in the stream.
const batchPatience = 20 * time.Millisecond

// join gives a message to a batch that waits for more. l.mu is held.
func (l *lane) join(g *gathering, h *held) bool {
	if g.got = append(g.got, h); len(g.got) == 1 {
		close(g.begun)
	}
	if len(g.got) == g.most {
		l.forgo(g)
	}
	return true
}

// forgo sends a batch on its way with what it has. l.mu is held.
func (l *lane) forgo(g *gathering) {
	l.gathers = slices.DeleteFunc(l.gathers, func(o *gathering) bool { return o == g })
	close(g.done)
}

// joinBatch gives a message to the batch that waits longest for more. l.mu is held.
func (l *lane) joinBatch(h *held) bool {
	return len(l.gathers) > 0 && h.attempt == 1 && l.join(l.gathers[0], h)
}

// gathered is how many messages batches wait for, as far as the stream has them. l.mu is held.
func (l *lane) gathered() int {
	n := 0
	for _, g := range l.gathers {
		n += g.most - len(g.got)
	}
	return min(n, l.backlog, max(l.q.cfg.MaxHeld-l.holding-l.pull.asked, 0))
}

// batches is how many slots so many messages take, beside the batches that wait for some of them. l.mu is held.
func (l *lane) batches(messages int) int {
	if l.batch == 0 {
		return messages
	}
	alone := 0
	for _, h := range l.hand {
		if h.attempt > 1 {
			alone++
		}
	}
	messages -= alone
	for _, g := range l.gathers {
		messages -= g.most - len(g.got)
	}
	return alone + (max(messages, 0)+l.batch-1)/l.batch
}

// forgoEmpty tells the batches that have no message that there is none, all others too where the lane ends. l.mu is held.
func (l *lane) forgoEmpty() {
	for _, g := range slices.Clone(l.gathers) {
		if len(g.got) == 0 || l.closed {
			l.forgo(g)
		}
	}
}
