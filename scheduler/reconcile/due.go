package reconcile

import (
	"container/heap"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/scheduler/state"
)

// due holds the functions that something is to be done for at a time, the earliest first.
type due struct {
	at   map[functions.Ref]time.Time
	heap dueHeap
}

type dueEntry struct {
	at  time.Time
	ref functions.Ref
}

// dueHeap may hold more than one entry of a function: the one whose time the map has counts.
type dueHeap []dueEntry

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(a, b int) bool { return h[a].at.Before(h[b].at) }
func (h dueHeap) Swap(a, b int)      { h[a], h[b] = h[b], h[a] }

// Push is for package heap.
func (h *dueHeap) Push(v any) { *h = append(*h, v.(dueEntry)) }

// Pop is for package heap.
func (h *dueHeap) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = dueEntry{}
	*h = (*h)[:last]
	return e
}

// add notes the time, unless an earlier one is noted.
func (d *due) add(ref functions.Ref, t time.Time) {
	if before, known := d.at[ref]; known && !t.Before(before) {
		return
	}
	d.at[ref] = t
	heap.Push(&d.heap, dueEntry{t, ref})
}

// next is the earliest time; zero when there is none.
func (d *due) next() time.Time {
	for len(d.heap) > 0 {
		if e := d.heap[0]; d.at[e.ref].Equal(e.at) {
			return e.at
		}
		heap.Pop(&d.heap)
	}
	return time.Time{}
}

// take removes and returns the functions whose time has come, n of them at most.
func (d *due) take(now time.Time, n int) []functions.Ref {
	var out []functions.Ref
	for t := d.next(); len(out) < n && !t.IsZero() && !now.Before(t); t = d.next() {
		ref := d.heap[0].ref
		heap.Pop(&d.heap)
		delete(d.at, ref)
		out = append(out, ref)
	}
	return out
}

// at asks for a look at the function when t comes.
func (r *Reconciler) at(f *state.Function, t time.Time) { r.due.add(f.Ref, t) }

const (
	// fullPass is how often every function is looked at, where they are not too many; those with something under way are looked at each tick.
	fullPass = time.Second
	// passAtOnce is up to how many functions a tick looks at for that. Of more of them it looks at passSlice, and as many follow every passPause, so
	// that no input waits for long. Of passStretch it asks no more than whether they are at rest.
	passAtOnce  = 256
	passStretch = 256
	passSlice   = 32
	passPause   = 5 * time.Millisecond
	// restingEvery is the pass that looks at functions at rest too, where there are many: there is nothing to decide for them, only words to be
	// brought up to date.
	restingEvery = 8
)

// pass is a look at every function, bit by bit.
type pass struct {
	// begun is when it began, next when it goes on.
	begun, next time.Time
	// left is how many are still to be gone through: the first ones of the state's list, so that none is missed when others come and go.
	left int
	// number counts the passes.
	number int
}

// begin starts a pass over so many functions if the last one is over and began a while ago.
func (p *pass) begin(now time.Time, all int) {
	if p.left > 0 || now.Sub(p.begun) < fullPass-fullPass/20 {
		return
	}
	p.begun, p.left = now, all
	p.number++
}

// take goes through a stretch of those that are left and returns at most n that are to be looked at.
func (p *pass) take(now time.Time, all []*state.Function, n int) (out []functions.Ref) {
	every := len(all) <= passAtOnce || p.number%restingEvery == 0
	p.left, p.next = min(p.left, len(all)), now.Add(passPause)
	for range max(n, passStretch) {
		if p.left == 0 || len(out) == n {
			break
		}
		p.left--
		if f := all[p.left]; every || !f.Resting() {
			out = append(out, f.Ref)
		}
	}
	return out
}
