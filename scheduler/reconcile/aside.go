package reconcile

import (
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/scheduler/placement"
	"github.com/tatami-faas/tatami/scheduler/state"
)

const (
	// asideAfter is how long the first in line finds no room before room is set aside for it, so that smaller ones do not take it bit by bit.
	asideAfter = 2 * time.Second
	// asideFor is how long room is kept before another node is looked for.
	asideFor = 10 * time.Second
)

// aside is room on a node that is kept for a function.
type aside struct {
	node   placement.NodeRef
	amount functions.Resources
	since  time.Time
}

// giveBack ends what is kept for a function: it is decided for now, and may take it. What it was is remembered.
func (r *Reconciler) giveBack(ref functions.Ref) {
	r.kept = r.asides[ref]
	if r.kept.node == 0 {
		return
	}
	delete(r.asides, ref)
	r.state.Engine().SetAside(r.kept.node, functions.Resources{}.Sub(r.kept.amount))
}

// keepAside keeps on for a function that still finds no room what was kept for it, or what it made room for just now.
func (r *Reconciler) keepAside(now time.Time, f *state.Function) {
	a := r.kept
	r.kept = aside{}
	switch {
	case a.node == 0 || f.Refused == nil || f.Refused.Quota != nil || f.Pending == "":
	case now.Sub(a.since) >= asideFor:
		f.InVain = a.node
	case !r.state.Engine().Suits(a.node, r.sought(f)):
	default:
		r.setAside(f.Ref, a)
	}
}

func (r *Reconciler) setAside(ref functions.Ref, a aside) {
	r.asides[ref] = a
	r.state.Engine().SetAside(a.node, a.amount)
}

// yield gives back what is kept for functions that have instances: one without any is to find room.
func (r *Reconciler) yield() {
	for ref, a := range r.asides {
		if f := r.state.Functions[ref]; f == nil || serves(f) {
			delete(r.asides, ref)
			r.state.Engine().SetAside(a.node, functions.Resources{}.Sub(a.amount))
		}
	}
}

// sought is what the function asked for last.
func (r *Reconciler) sought(f *state.Function) *placement.Request {
	if rev := f.Revision(f.Sought); rev != nil {
		return &rev.Request
	}
	return &placement.Request{}
}

// holdForFirst sets room aside for the first in line once it has waited for long, or its namespace lags behind. There is one such at a time.
func (r *Reconciler) holdForFirst(now time.Time) {
	var all, long []place
	for ref, since := range r.short {
		if _, has := r.asides[ref]; has {
			return
		}
		if f := r.state.Functions[ref]; f == nil || f.Refused == nil || f.Refused.Quota != nil || f.Refused.Never || f.Pending == "" {
			continue
		}
		p := r.placeOf(ref)
		if all = append(all, p); now.Sub(since) >= asideAfter {
			long = append(long, p)
		}
	}
	l := newLine(all, r.state.Engine().Level)
	if !l.lags() {
		l = newLine(long, r.state.Engine().Level)
	}
	ref, ok := l.next()
	if !ok {
		return
	}
	f := r.state.Functions[ref]
	req := r.sought(f)
	if n := r.nearest(f, req); n != nil {
		r.setAside(ref, aside{node: n.Ref, amount: req.Resources, since: now})
		f.Events.Add(now, "", "first in line: room is kept for it on "+n.Name+" as it becomes free")
	}
}

// nearest is the node that lacks the least of what the request needs, but for where room was kept in vain last; nil where none would take it beside
// the function's own instances.
func (r *Reconciler) nearest(f *state.Function, req *placement.Request) *state.Node {
	own := map[functions.NodeID]functions.Resources{}
	for _, in := range f.Instances {
		own[in.Node] = own[in.Node].Add(in.Reserved)
	}
	var best *state.Node
	var least float64
	for _, n := range r.state.NodeOrder() {
		if n.Ref == f.InVain || !r.state.Engine().Suits(n.Ref, req) || !req.Resources.Add(own[n.ID]).Fits(n.Allocatable) {
			continue
		}
		short := req.Resources.Sub(r.state.Free(n))
		part := func(of, whole int64) float64 { return float64(max(of, 0)) / float64(max(whole, 1)) }
		lacks := max(part(short.CPU, n.Allocatable.CPU), part(short.Memory, n.Allocatable.Memory), part(short.Instances, n.Allocatable.Instances))
		if best == nil || lacks < least {
			best, least = n, lacks
		}
	}
	f.InVain = 0
	return best
}
