package scheduler

import (
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/scheduler/placement"
	"github.com/tatami-faas/tatami/scheduler/state"
)

// compact plans which nodes could be given back; it changes nothing.
func compact(st *state.State, limit int) bus.CompactPlan {
	out := bus.CompactPlan{Schema: bus.Schema, Nodes: []bus.CompactNode{}, Moves: []bus.CompactMove{}}
	nodes := map[placement.NodeRef]*state.Node{}
	for _, n := range st.NodeOrder() {
		nodes[n.Ref] = n
	}
	held := make(map[placement.Reservation]*state.Instance, len(st.Instances))
	for _, in := range st.Instances {
		held[in.Reservation] = in
	}
	plan := st.Engine().Compact(limit, nil)
	for _, ref := range plan.Freed {
		n := nodes[ref]
		out.Nodes = append(out.Nodes, bus.CompactNode{Node: n.ID, Name: n.Name, Reserved: st.Reserved(n)})
	}
	for _, m := range plan.Moves {
		in := held[m.Reservation]
		out.Moves = append(out.Moves, bus.CompactMove{
			Instance: in.Instance, Namespace: in.Namespace, Function: in.Function, From: nodes[m.From].Name, To: nodes[m.To].Name,
		})
	}
	return out
}
