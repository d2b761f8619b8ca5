package queue

import (
	"container/heap"
	"sync"
	"time"

	"github.com/tatami-faas/tatami/functions"
)

// alarm is when an invocation is due.
type alarm struct {
	id functions.InvocationID
	at time.Time
	// index is its place in the heap.
	index int
}

// alarms are the invocations that wait for a time. The zero value has none.
type alarms struct {
	mu   sync.Mutex
	byID map[functions.InvocationID]*alarm
	heap alarmHeap
	// earlier is sent to when the first alarm has become another, and when there is room for more to be under way.
	earlier chan struct{}
}

func newAlarms() *alarms {
	return &alarms{byID: map[functions.InvocationID]*alarm{}, earlier: make(chan struct{}, 1)}
}

// set makes an invocation due at a time, instead of the one before if it had one.
func (a *alarms) set(id functions.InvocationID, at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if cur := a.byID[id]; cur != nil {
		cur.at = at
		heap.Fix(&a.heap, cur.index)
	} else {
		cur = &alarm{id: id, at: at}
		a.byID[id] = cur
		heap.Push(&a.heap, cur)
	}
	if a.heap[0].id == id {
		a.poke()
	}
}

// unset forgets an invocation.
func (a *alarms) unset(id functions.InvocationID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if cur := a.byID[id]; cur != nil {
		heap.Remove(&a.heap, cur.index)
		delete(a.byID, id)
	}
}

// due takes out what is due by a time, up to most of it, and says when the next one is; zero: there is none.
func (a *alarms) due(by time.Time, most int) (out []*alarm, next time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for len(a.heap) > 0 {
		first := a.heap[0]
		if first.at.After(by) || len(out) >= most {
			return out, first.at
		}
		heap.Pop(&a.heap)
		delete(a.byID, first.id)
		out = append(out, first)
	}
	return out, time.Time{}
}

// poke wakes whoever waits for the first alarm.
func (a *alarms) poke() {
	select {
	case a.earlier <- struct{}{}:
	default:
	}
}

// alarmHeap has the earliest alarm first.
type alarmHeap []*alarm

func (h alarmHeap) Len() int           { return len(h) }
func (h alarmHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h alarmHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push is for the package heap.
func (h *alarmHeap) Push(x any) {
	a := x.(*alarm)
	a.index = len(*h)
	*h = append(*h, a)
}

// Pop is for the package heap.
func (h *alarmHeap) Pop() any {
	last := len(*h) - 1
	a := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return a
}
