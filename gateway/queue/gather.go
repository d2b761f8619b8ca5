package queue

import (
	"slices"
	"time"

	"github.com/tatami-faas/tatami/functions"
)

// gathering is a batch that has its slot and waits for more messages.
type gathering struct {
	got []*held
	// most is how many there are to be.
	most int
	// full is closed when there are so many, or the lane ends.
	full chan struct{}
}

// gather returns a message and others that are to go with it: those in hand, and those that come within the batch's window, as many as it may have.
// A message whose attempt is not the first goes alone.
func (l *lane) gather(first *held, b functions.Batch) []*held {
	if first.attempt > 1 {
		return []*held{first}
	}
	g := &gathering{got: []*held{first}, most: b.Size, full: make(chan struct{})}
	l.mu.Lock()
	l.hand = slices.DeleteFunc(l.hand, func(h *held) bool {
		taken := len(g.got) < g.most && h.attempt == 1
		if taken {
			g.got = append(g.got, h)
		}
		return taken
	})
	if len(g.got) == g.most || l.closed {
		l.step()
		l.mu.Unlock()
		return g.got
	}
	l.gathers = append(l.gathers, g)
	// What waits in the stream comes in one answer, at once.
	window := b.Window.Std()
	if window == 0 && l.backlog > 0 {
		window = batchPatience
	}
	l.step()
	l.mu.Unlock()
	timer := time.NewTimer(window)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-g.full:
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gathers = slices.DeleteFunc(l.gathers, func(o *gathering) bool { return o == g })
	return g.got
}

// batchPatience is how long a batch without a window waits for what is in the stream.
const batchPatience = 20 * time.Millisecond

// joinBatch gives a message to a batch that waits for more. l.mu is held.
func (l *lane) joinBatch(h *held) bool {
	if len(l.gathers) == 0 || h.attempt > 1 {
		return false
	}
	g := l.gathers[0]
	if g.got = append(g.got, h); len(g.got) == g.most {
		l.gathers = l.gathers[1:]
		close(g.full)
	}
	return true
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
	for _, g := range l.gathers {
		messages -= g.most - len(g.got)
	}
	return (max(messages, 0) + l.batch - 1) / l.batch
}

// endGathers sends the batches that wait on their way. l.mu is held.
func (l *lane) endGathers() {
	for _, g := range l.gathers {
		close(g.full)
	}
	l.gathers = nil
}
