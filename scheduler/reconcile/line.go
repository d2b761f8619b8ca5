package reconcile

import (
	"cmp"
	"container/heap"
	"slices"
	"time"

	"github.com/tatami-faas/tatami/functions"
)

// line is who is decided for next. Namespaces take turns: the one that holds the least for its weight is next, for an instance at a time. Within a
// namespace what lacks instances and has none at all comes first, then what lacks some, the longest of each first, then what lacks nothing that is
// known of.
type line struct {
	groups []*group
	level  func(namespace string) float64
}

// group is a namespace in line with its functions, the next one first.
type group struct {
	namespace string
	waiting   []place
	level     float64
}

// place is a function's place in line.
type place struct {
	ref functions.Ref
	// class is 0 for a function that lacks instances and has none, 1 for one that lacks some, 2 for others; since is when it began, or got one last.
	class int
	since time.Time
}

func (p *place) compare(o *place) int {
	return cmp.Or(cmp.Compare(p.class, o.class), p.since.Compare(o.since), cmp.Compare(p.ref.Namespace, o.ref.Namespace), cmp.Compare(p.ref.Name, o.ref.Name))
}

func newLine(places []place, level func(namespace string) float64) *line {
	slices.SortFunc(places, func(a, b place) int {
		return cmp.Or(cmp.Compare(a.ref.Namespace, b.ref.Namespace), a.compare(&b))
	})
	places = slices.CompactFunc(places, func(a, b place) bool { return a.ref == b.ref })
	l := &line{level: level}
	for len(places) > 0 {
		name := places[0].ref.Namespace
		n := slices.IndexFunc(places, func(p place) bool { return p.ref.Namespace != name })
		if n < 0 {
			n = len(places)
		}
		l.groups = append(l.groups, &group{namespace: name, waiting: places[:n], level: level(name)})
		places = places[n:]
	}
	heap.Init(l)
	return l
}

// next returns who is next; it stays in line until it leaves or its turn is over.
func (l *line) next() (ref functions.Ref, ok bool) {
	if len(l.groups) == 0 {
		return functions.Ref{}, false
	}
	return l.groups[0].waiting[0].ref, true
}

// turn ends the turn of who was next. What its namespace holds has changed; it stays the first of it if it wants more, and leaves otherwise.
func (l *line) turn(more bool) {
	g := l.groups[0]
	if !more {
		g.waiting = g.waiting[1:]
	}
	if len(g.waiting) == 0 {
		heap.Pop(l)
		return
	}
	g.level = l.level(g.namespace)
	heap.Fix(l, 0)
}

// lags reports whether the namespace that is next holds much less for its weight than another one in line.
func (l *line) lags() bool {
	for _, g := range l.groups {
		if l.groups[0].level < lagging*g.level {
			return true
		}
	}
	return false
}

// lagging is the part of another's level below which a namespace lags behind it.
const lagging = 0.9

// Len is part of heap.Interface.
func (l *line) Len() int { return len(l.groups) }

// Less is part of heap.Interface.
func (l *line) Less(i, j int) bool {
	a, b := l.groups[i], l.groups[j]
	return cmp.Or(cmp.Compare(a.waiting[0].class/2, b.waiting[0].class/2), cmp.Compare(a.level, b.level), a.waiting[0].compare(&b.waiting[0])) < 0
}

// Swap is part of heap.Interface.
func (l *line) Swap(i, j int) { l.groups[i], l.groups[j] = l.groups[j], l.groups[i] }

// Push is part of heap.Interface.
func (l *line) Push(x any) { l.groups = append(l.groups, x.(*group)) }

// Pop is part of heap.Interface.
func (l *line) Pop() any {
	last := len(l.groups) - 1
	g := l.groups[last]
	l.groups = l.groups[:last]
	return g
}

// placeOf is the function's place in line.
func (r *Reconciler) placeOf(ref functions.Ref) place {
	p := place{ref: ref, class: 2}
	if since, lacks := r.short[ref]; lacks {
		p.class, p.since = 1, since
		if f := r.state.Functions[ref]; f != nil && !serves(f) {
			p.class = 0
		}
	}
	return p
}

// decide looks at functions, each once and again while it wants more than its turn allows.
func (r *Reconciler) decide(now time.Time, refs ...functions.Ref) {
	switch {
	case !r.opened:
		return
	case len(refs) == 1:
		r.one(now, refs[0], unlimited)
		return
	}
	places := make([]place, len(refs))
	for i, ref := range refs {
		places[i] = r.placeOf(ref)
	}
	l := newLine(places, r.state.Engine().Level)
	for ref, ok := l.next(); ok; ref, ok = l.next() {
		l.turn(r.one(now, ref, 1))
	}
}

// unlimited is the number of starts of a function that need not share.
const unlimited = -1

// one decides for a function, which may start so many instances, and reports whether it wants more.
func (r *Reconciler) one(now time.Time, ref functions.Ref, starts int) (more bool) {
	delete(r.watched, ref)
	r.giveBack(ref)
	f := r.state.Functions[ref]
	if f == nil {
		delete(r.short, ref)
		r.due.set(ref, time.Time{})
		return false
	}
	r.starts, r.more, r.nextLook = starts, false, time.Time{}
	r.function(now, f)
	r.due.set(ref, r.nextLook)
	r.keepAside(now, f)
	return r.more
}

// may reports whether the function whose turn it is may start an instance more.
func (r *Reconciler) may() bool {
	if r.starts == 0 {
		r.more = true
		return false
	}
	return true
}
