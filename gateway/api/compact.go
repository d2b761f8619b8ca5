package api

import (
	"context"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/internal/bus"
)

// compactReason is what a node shows that was drained to be given back.
const compactReason = "compacted, to be given back"

type compactInput struct{ Body v1.CompactRequest }

// compact drains the nodes that the scheduler's plan empties; they stay closed until an operator opens them.
func (a *API) compact(ctx context.Context, in *compactInput) (*body[v1.CompactPlan], error) {
	plan, err := ask[bus.CompactPlan](ctx, a, bus.SubjectCompact, bus.CompactRequest{Schema: bus.Schema, Nodes: max(in.Body.Nodes, 1)})
	if err != nil {
		return nil, err
	}
	out := v1.CompactPlan{Nodes: []v1.CompactNode{}, Moves: []v1.CompactMove{}, Draining: !in.Body.DryRun && len(plan.Nodes) > 0}
	for _, n := range plan.Nodes {
		out.Nodes = append(out.Nodes, v1.CompactNode(n))
	}
	for _, m := range plan.Moves {
		out.Moves = append(out.Moves, v1.CompactMove(m))
	}
	if !out.Draining {
		return &body[v1.CompactPlan]{out}, nil
	}
	for _, n := range plan.Nodes {
		set := functions.NodeSettings{Schema: functions.Schema, Node: n.Node, Intent: functions.NodeDrained, Reason: compactReason}
		if _, err := a.deps.Bus.Nodes().Put(ctx, bus.NodeKey(n.Node), set); err != nil {
			return nil, err
		}
		a.log.Info("node intent set", "node", string(n.Node), "state", string(set.Intent), "reason", set.Reason)
	}
	return &body[v1.CompactPlan]{out}, a.deps.Bus.Nodes().Sync(ctx)
}
