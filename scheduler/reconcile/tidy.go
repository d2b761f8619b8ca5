package reconcile

import (
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/scheduler/placement"
	"github.com/tatami-faas/tatami/scheduler/state"
)

const (
	// tidyFor is how long a node may take to become empty before it is left as it is.
	tidyFor = 2 * time.Minute
	// tidyAgain is after how many times CompactAfter a node may be emptied again.
	tidyAgain = 10
)

// tidying is the compaction that goes on by itself.
type tidying struct {
	// node is being emptied since; it is empty where none is.
	node  functions.NodeID
	since time.Time
	// calm is since when nothing lacked room and no node was emptied.
	calm time.Time
	// tried is when a node was last begun with.
	tried map[functions.NodeID]time.Time
}

// tidy empties one node after the other whose instances do nothing and fit on others that run something already. A node that became empty takes
// instances as before: placement turns to it last, so it stays empty until nothing else has room, or until it is given back.
func (r *Reconciler) tidy(now time.Time) {
	t := &r.tidying
	if t.node != "" {
		r.tidied(now)
		return
	}
	if len(r.short) > 0 || t.calm.IsZero() {
		t.calm = now
	}
	if now.Sub(t.calm) < r.cfg.CompactAfter {
		return
	}
	t.calm = now
	nodes := map[placement.NodeRef]*state.Node{}
	for _, n := range r.state.NodeOrder() {
		nodes[n.Ref] = n
	}
	plan := r.state.Engine().Compact(1, func(ref placement.NodeRef) bool { return r.mayTidy(now, nodes[ref]) })
	if len(plan.Freed) == 0 {
		return
	}
	n := nodes[plan.Freed[0]]
	if t.tried == nil {
		t.tried = map[functions.NodeID]time.Time{}
	}
	t.node, t.since, t.tried[n.ID] = n.ID, now, now
	r.state.Empty(n, "compaction: its instances fit on other nodes")
	r.out = append(r.out, Effect{Kind: Tell, Reason: "node " + n.Name + " is being emptied: its instances fit on other nodes"})
	r.nodeChanged(now, n.ID)
}

// mayTidy reports whether a node may be emptied: all on it is ready, does nothing and is wanted by its function, whose instances need not be apart or near others.
// What is not wanted goes by itself.
func (r *Reconciler) mayTidy(now time.Time, n *state.Node) bool {
	if at, tried := r.tidying.tried[n.ID]; tried && now.Sub(at) < tidyAgain*r.cfg.CompactAfter {
		return false
	}
	delete(r.tidying.tried, n.ID)
	for _, in := range n.Instances {
		f := r.state.Functions[in.Ref()]
		if f.Record == nil || in.Revision != f.Record.Live || f.Record.Candidate != "" || !in.Active() {
			return false
		}
		live := f.Revision(in.Revision)
		if live == nil || live.Request.Spread != 0 || len(live.Record.Config.Placement.Near)+len(live.Record.Config.Placement.Apart) > 0 || len(f.Instances) > f.Desired {
			return false
		}
		if k := idleness(f, in); k.Busy || now.Sub(k.LastUsed) < evictIdle {
			return false
		}
	}
	return true
}

// tidied ends the emptying of a node: it is empty, or it is given up because something lacks room or an instance does not leave.
func (r *Reconciler) tidied(now time.Time) {
	t := &r.tidying
	n := r.state.Nodes[t.node]
	switch {
	case n == nil || n.Emptying == "":
		// It is lost, or its operator wants something of it.
	case len(n.Instances) == 0:
		r.state.Empty(n, "")
		r.out = append(r.out, Effect{Kind: Tell, Reason: "node " + n.Name + " is empty and can be given back"})
	case len(r.short) > 0 || now.Sub(t.since) >= tidyFor:
		r.state.Empty(n, "")
		r.out = append(r.out, Effect{Kind: Tell, Reason: "node " + n.Name + " is not emptied after all: its room is needed, or an instance does not leave"})
	default:
		return
	}
	id := t.node
	t.node, t.calm = "", now
	r.nodeChanged(now, id)
}
