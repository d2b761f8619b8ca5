package sim

import (
	"cmp"
	"container/heap"
	"fmt"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/scheduler/reconcile"
)

// Drive is how the whole scheduler is driven through a trace.
type Drive struct {
	// KeepAlive and KeepAliveMax are every application's; see functions.Scale.
	KeepAlive, KeepAliveMax time.Duration
	// IdleMemory is how much memory may be idle before its price rises, in bytes; zero is the scheduler's default.
	IdleMemory int64
	// Start is how long a cold start takes.
	Start time.Duration
}

const (
	// beat is how often nodes and the gateway say that they are there, and the scheduler looks at everything.
	beat = 2 * time.Second
	// busyTick is how often the scheduler looks at what is under way.
	busyTick = 100 * time.Millisecond
	// perInstance is how many calls an instance runs at once: all of an application.
	perInstance = 1000
)

// Run plays a trace against the scheduler's Reconciler as a whole, whose every decision it takes: placement, scaling, keep-alive and state. Around it are a
// gateway, and workers that do as commanded; there is always one node more than is in use. It is slower than Play by far, and models what
// Play leaves out: that a start takes time in which calls wait, and that the scheduler learns of the load from messages.
func (d Drive) Run(t *Trace) *Result {
	w := &world{
		cfg: d, trace: t, apps: make([]driven, len(t.Apps)), named: map[string]int{}, nodes: map[functions.NodeID]*simNode{},
		at: map[functions.InstanceID]*simInstance{}, now: began,
	}
	w.core = reconcile.New(reconcile.Config{IdleMemory: d.IdleMemory}, func() functions.InstanceID {
		w.ids++
		return functions.InstanceID(fmt.Sprintf("ins_%d", w.ids))
	})
	w.open()
	for i := range t.Apps {
		if len(t.Apps[i].Calls) > 0 {
			w.push(event{at: ms(t.Apps[i].Calls[0].At), kind: arrival, app: i})
		}
	}
	for hour := time.Hour; ; hour += time.Hour {
		w.push(event{at: min(hour, t.Length), kind: hourly})
		if hour >= t.Length {
			break
		}
	}
	for len(w.events) > 0 {
		w.pass()
		e := heap.Pop(&w.events).(event)
		if e.at > t.Length {
			break
		}
		w.handle(e)
	}
	return w.end()
}

// event is what happens at a time of the trace.
type event struct {
	at   time.Duration
	kind eventKind
	app  int
	inst *simInstance
	// order keeps those of one time in the order in which they were pushed.
	order int
}

type eventKind uint8

// What happens at one time happens in this order: a call that comes just when another ends finds its instance, one that comes just when the keep-alive
// ends does not.
const (
	started eventKind = iota
	ended
	hourly
	arrival
)

type eventHeap []event

// Len is for package heap.
func (h eventHeap) Len() int { return len(h) }

// Less is for package heap.
func (h eventHeap) Less(i, j int) bool {
	a, b := &h[i], &h[j]
	return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.kind, b.kind), cmp.Compare(a.order, b.order)) < 0
}

// Swap is for package heap.
func (h eventHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push is for package heap.
func (h *eventHeap) Push(v any) { *h = append(*h, v.(event)) }

// Pop is for package heap.
func (h *eventHeap) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	*h = (*h)[:last]
	return e
}

func (w *world) push(e event) {
	w.pushed++
	e.order = w.pushed
	heap.Push(&w.events, e)
}
