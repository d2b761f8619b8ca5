package invoke

import (
	"sync"
	"time"

	"github.com/tatami-faas/tatami/internal/bus"
)

// instance is an instance that the gateway may send requests to. Its fields up to heapAt are guarded by the pool's mutex.
type instance struct {
	// ep is replaced when the worker says something new, never changed.
	ep *bus.Endpoint
	// added is when the gateway learned of the instance, by its own clock.
	added time.Time
	held  int
	// used orders instances by their last use.
	used uint64
	// refusals counts the worker's refusals in a row; the instance is not asked while refused is set.
	refusals int
	refused  bool
	// heapAt is the place in the heap of free instances, -1 outside.
	heapAt int

	fn   *function
	up   *upstream
	gone chan struct{}
	once sync.Once
	// departure is valid once gone is closed.
	departure bus.Departure
}

func newInstance(f *function, ep *bus.Endpoint, w Workers, now time.Time) *instance {
	i := &instance{ep: ep, added: now, heapAt: -1, fn: f, gone: make(chan struct{})}
	i.up = &upstream{workers: w, node: ep.Node, id: ep.Instance}
	return i
}

func (i *instance) full() bool { return i.held >= i.ep.Slots }

// depart records how the instance left and closes its idle connections. Those in use go on: a draining instance ends its requests.
func (i *instance) depart(d bus.Departure) {
	i.once.Do(func() {
		i.departure = d
		close(i.gone)
	})
	i.up.close()
}

// instHeap is a heap of instances: full ones last, else the fewest slots held first; among equals the one used last, so that the
// others may go.
type instHeap []*instance

func (h instHeap) less(a, b int) bool {
	if fa, fb := h[a].full(), h[b].full(); fa != fb {
		return fb
	}
	if h[a].held != h[b].held {
		return h[a].held < h[b].held
	}
	return h[a].used > h[b].used
}

func (h instHeap) swap(a, b int) {
	h[a], h[b] = h[b], h[a]
	h[a].heapAt, h[b].heapAt = a, b
}

func (h instHeap) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if !h.less(i, parent) {
			return
		}
		h.swap(i, parent)
		i = parent
	}
}

func (h instHeap) down(i int) {
	for {
		least := i
		for c := 2*i + 1; c <= 2*i+2 && c < len(h); c++ {
			if h.less(c, least) {
				least = c
			}
		}
		if least == i {
			return
		}
		h.swap(i, least)
		i = least
	}
}

// fix restores the order after the instance changed.
func (h instHeap) fix(i *instance) {
	if i.heapAt >= 0 {
		h.up(i.heapAt)
		h.down(i.heapAt)
	}
}

func (h *instHeap) push(i *instance) {
	if i.heapAt >= 0 {
		return
	}
	*h = append(*h, i)
	i.heapAt = len(*h) - 1
	h.up(i.heapAt)
}

func (h *instHeap) remove(i *instance) {
	at := i.heapAt
	if at < 0 {
		return
	}
	last := len(*h) - 1
	h.swap(at, last)
	(*h)[last] = nil
	*h = (*h)[:last]
	i.heapAt = -1
	if at < last {
		h.up(at)
		h.down(at)
	}
}
