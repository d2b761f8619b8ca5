package reconcile

import (
	"cmp"
	"slices"

	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/scheduler/state"
)

// prefetched is on how many nodes an artifact is made ready ahead, beside those that have it.
const prefetched = 2

// prefetch has a revision's artifact made ready where its next instances would go, so that the first of them there waits for no image: on the
// tightest nodes that take one now, as placement goes by that, and lack the artifact. Losing a command loses nothing but time.
func (r *Reconciler) prefetch(f *state.Function, rev *state.Revision) {
	req := &rev.Request
	if req.Digest == "" {
		return
	}
	type place struct {
		node *state.Node
		left float64
	}
	var all []place
	for _, n := range r.state.NodeOrder() {
		if _, has := n.Artifacts[req.Digest]; has || runs(f, rev, n) || !r.state.Engine().Suits(n.Ref, req) {
			continue
		}
		if free := r.state.Free(n); req.Resources.Fits(free) {
			all = append(all, place{n, r.state.Engine().Share(free.Sub(req.Resources))})
		}
	}
	slices.SortFunc(all, func(a, b place) int { return cmp.Or(cmp.Compare(a.left, b.left), cmp.Compare(a.node.ID, b.node.ID)) })
	for _, p := range all[:min(len(all), prefetched)] {
		r.out = append(r.out, Effect{Kind: Send, Ref: f.Ref, Revision: rev.Record.ID, Command: bus.Command{
			Envelope: bus.Envelope{Schema: bus.Schema, Node: p.node.ID, Epoch: bus.Epoch},
			Action:   bus.ActionPrepare, Revision: rev.Record, Reason: "an instance of it may be placed here",
		}})
	}
}

// runs reports whether an instance of the revision is on the node, or begins there: its artifact is made ready for that.
func runs(f *state.Function, rev *state.Revision, n *state.Node) bool {
	for _, in := range f.Instances {
		if in.Node == n.ID && in.Revision == rev.Record.ID {
			return true
		}
	}
	return false
}
