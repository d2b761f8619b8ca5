package reconcile

import (
	"container/heap"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/scheduler/state"
)

// due holds the functions that something is to be done for at a time, the earliest first.
type due struct {
	at   map[functions.Ref]*dueEntry
	heap dueHeap
}

// dueEntry is a function's time, and its place in the heap.
type dueEntry struct {
	at    time.Time
	ref   functions.Ref
	place int
}

type dueHeap []*dueEntry

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(a, b int) bool { return h[a].at.Before(h[b].at) }

// Swap is for package heap.
func (h dueHeap) Swap(a, b int) {
	h[a], h[b] = h[b], h[a]
	h[a].place, h[b].place = a, b
}

// Push is for package heap.
func (h *dueHeap) Push(v any) {
	e := v.(*dueEntry)
	e.place = len(*h)
	*h = append(*h, e)
}

// Pop is for package heap.
func (h *dueHeap) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return e
}

// set makes it the function's time, whatever was noted before; zero notes none.
func (d *due) set(ref functions.Ref, t time.Time) {
	e := d.at[ref]
	switch {
	case t.IsZero() && e != nil:
		heap.Remove(&d.heap, e.place)
		delete(d.at, ref)
	case t.IsZero():
	case e == nil:
		e = &dueEntry{at: t, ref: ref}
		d.at[ref] = e
		heap.Push(&d.heap, e)
	case !e.at.Equal(t):
		e.at = t
		heap.Fix(&d.heap, e.place)
	}
}

// has reports whether a time is noted of the function.
func (d *due) has(ref functions.Ref) bool { return d.at[ref] != nil }

// next is the earliest time; zero when there is none.
func (d *due) next() time.Time {
	if len(d.heap) == 0 {
		return time.Time{}
	}
	return d.heap[0].at
}

// take removes and returns the functions whose time has come, n of them at most.
func (d *due) take(now time.Time, n int) []functions.Ref {
	var out []functions.Ref
	for len(out) < n && len(d.heap) > 0 && !now.Before(d.heap[0].at) {
		e := heap.Pop(&d.heap).(*dueEntry)
		delete(d.at, e.ref)
		out = append(out, e.ref)
	}
	return out
}

// at asks for a look at the function that is decided for when t comes, if not before.
func (r *Reconciler) at(t time.Time) {
	if r.nextLook.IsZero() || t.Before(r.nextLook) {
		r.nextLook = t
	}
}

const (
	// fullPass is how often every function is looked at, where they are not too many; those with something under way are looked at each tick.
	fullPass = time.Second
	// passAtOnce is up to how many functions a tick looks at for that. Of more of them it looks at passSlice, and as many follow every passPause, so
	// that no input waits for long. Of passStretch it asks no more than whether they are at rest.
	passAtOnce  = 256
	passStretch = 256
	passSlice   = 32
	passPause   = 5 * time.Millisecond
	// restingEvery is the pass that looks at functions too for which there is nothing to decide, where there are many: only words are to be brought up
	// to date.
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
func (p *pass) take(now time.Time, all []*state.Function, n int, resting func(*state.Function) bool) (out []functions.Ref) {
	every := len(all) <= passAtOnce || p.number%restingEvery == 0
	p.left, p.next = min(p.left, len(all)), now.Add(passPause)
	for range max(n, passStretch) {
		if p.left == 0 || len(out) == n {
			break
		}
		p.left--
		if f := all[p.left]; every || !resting(f) {
			out = append(out, f.Ref)
		}
	}
	return out
}
