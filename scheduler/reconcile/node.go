package reconcile

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/scheduler/state"
)

// SetNode hands in what an operator wants of a node.
func (r *Reconciler) SetNode(now time.Time, set functions.NodeSettings) []Effect {
	r.begin()
	if set.Intent == functions.NodeRemoved {
		r.changed(now, r.state.RemoveNode(set))
		return r.out
	}
	r.state.SetNode(set)
	r.nodeChanged(now, set.Node)
	return r.out
}

// DeleteNode hands in that an operator wants nothing of a node any more.
func (r *Reconciler) DeleteNode(now time.Time, id functions.NodeID) []Effect {
	r.begin()
	r.state.DeleteNode(id)
	r.nodeChanged(now, id)
	return r.out
}

// nodeChanged decides for those that the node concerns, and for those that lack room.
func (r *Reconciler) nodeChanged(now time.Time, id functions.NodeID) {
	refs := maps.Clone(r.short)
	if n := r.state.Nodes[id]; n != nil {
		for _, in := range n.Instances {
			refs[in.Ref()] = now
		}
	}
	r.decide(now, slices.Collect(maps.Keys(refs))...)
}

// leaveNodes drains the function's instances on nodes that are to be empty. As many of the live revision as demand needs stay until
// others are ready elsewhere: scale does not count those on such a node, and so starts them.
func (r *Reconciler) leaveNodes(now time.Time, f *state.Function) {
	var on []*state.Instance
	for _, in := range f.Instances {
		if n := r.state.Nodes[in.Node]; n != nil && n.Drained() {
			n.DrainedFrom = max(n.DrainedFrom, len(n.Instances))
			if in.Active() {
				on = append(on, in)
			}
		}
	}
	if len(on) == 0 {
		return
	}
	r.look(f)
	_, ready := r.count(f, f.Record.Live)
	needed := f.Desired - ready
	slices.SortFunc(on, func(a, b *state.Instance) int {
		return cmp.Or(cmp.Compare(b.State, a.State), cmp.Compare(b.Held, a.Held), cmp.Compare(a.Instance, b.Instance))
	})
	for _, in := range on {
		if in.Revision == f.Record.Live && needed > 0 {
			needed--
			continue
		}
		n := r.state.Nodes[in.Node]
		why := "node " + n.Name + " is drained"
		if _, reason := n.Intent(); reason != "" {
			why += ": " + reason
		}
		r.drain(now, f, in, why)
	}
}
