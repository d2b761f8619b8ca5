package reconcile

import (
	"time"

	"github.com/tatami-faas/tatami/functions"
)

// Withdrawal is what a pool wants of a node of its own that it does not leave to the scheduler altogether.
type Withdrawal struct {
	// Empty says that its instances are to leave; else only nothing more is placed on it.
	Empty bool
	// Why is the reason, for people.
	Why string
}

// Withdraw hands in what the pool wants of its nodes, all of it. A node that it wanted something of before, and wants nothing of now, takes instances
// again. What an operator wants of a node goes before.
func (r *Reconciler) Withdraw(now time.Time, nodes map[functions.NodeID]Withdrawal) []Effect {
	r.begin()
	for id, was := range r.pooled {
		n := r.state.Nodes[id]
		if w, still := nodes[id]; n == nil || still && w == was {
			continue
		}
		if was.Empty && n.Emptying == was.Why {
			r.state.Empty(n, "")
		}
		r.state.Close(n, "")
		r.nodeChanged(now, id)
	}
	for id, w := range nodes {
		n := r.state.Nodes[id]
		switch {
		case n == nil:
		case w.Empty && n.Emptying == "" && n.Settings.Intent != functions.NodeDrained:
			r.state.Empty(n, w.Why)
			r.nodeChanged(now, id)
		case !w.Empty && n.Closed != w.Why:
			r.state.Close(n, w.Why)
			r.nodeChanged(now, id)
		}
	}
	r.pooled = nodes
	return r.out
}
