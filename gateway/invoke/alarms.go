package invoke

import (
	"container/heap"
	"sync"
	"time"
)

// alarms rings for the deadlines of all functions, with one timer: were there one a function that was called within its timeout, Go's scheduler would
// look through thousands of them whenever it puts its own in order. A function comes here once in the length of its timeout, however often it is
// called. The zero one is ready.
type alarms struct {
	mu    sync.Mutex
	due   dueAlarms
	timer *time.Timer
	// next is when the timer rings; zero while it is not set.
	next time.Time
}

// dueAlarm is when a function's deadlines want to be rung.
type dueAlarm struct {
	at time.Time
	of *deadlines
}

// set has the deadlines rung at that time. What was set for them before rings too.
func (a *alarms) set(at time.Time, of *deadlines) {
	a.mu.Lock()
	defer a.mu.Unlock()
	heap.Push(&a.due, dueAlarm{at, of})
	a.wake()
}

// wake sets the timer for the first alarm, unless it rings before; a.mu is held.
func (a *alarms) wake() {
	if len(a.due) == 0 || !a.next.IsZero() && !a.due[0].at.Before(a.next) {
		return
	}
	a.next = a.due[0].at
	if a.timer == nil {
		a.timer = time.AfterFunc(time.Until(a.next), a.ring)
	} else {
		a.timer.Reset(time.Until(a.next))
	}
}

// ring rings for those whose time has come.
func (a *alarms) ring() {
	var now []dueAlarm
	a.mu.Lock()
	a.next = time.Time{}
	for begun := time.Now(); len(a.due) > 0 && !a.due[0].at.After(begun); {
		now = append(now, heap.Pop(&a.due).(dueAlarm))
	}
	a.wake()
	a.mu.Unlock()
	for _, d := range now {
		d.of.ring(d.at)
	}
}

// dueAlarms is a heap of alarms, the first one on top.
type dueAlarms []dueAlarm

func (h dueAlarms) Len() int           { return len(h) }
func (h dueAlarms) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h dueAlarms) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *dueAlarms) Push(x any)        { *h = append(*h, x.(dueAlarm)) }

func (h *dueAlarms) Pop() any {
	last := len(*h) - 1
	d := (*h)[last]
	(*h)[last] = dueAlarm{}
	*h = (*h)[:last]
	return d
}
