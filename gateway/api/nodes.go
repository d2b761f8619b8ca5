package api

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// lostAfter is how long after its last report a node counts as lost.
const lostAfter = 10 * time.Second

// poolStatic is the pool of workers that join by themselves.
const poolStatic = "static"

// NodeInput names a node in a path.
type NodeInput struct {
	Node string `path:"node" doc:"Id or name of the node"`
}

type intentInput struct {
	NodeInput
	Body v1.NodeIntent
}

func (a *API) registerNodes(h huma.API) {
	tags := []string{"nodes"}
	handle(a, h, huma.Operation{
		OperationID: "list-nodes", Method: http.MethodGet, Path: "/v1/nodes", Summary: "List the nodes", Tags: tags,
	}, func(ctx context.Context, _ *none) (*body[[]v1.Node], error) {
		out, err := a.nodes(ctx)
		return &body[[]v1.Node]{out}, err
	})
	handle(a, h, huma.Operation{
		OperationID: "get-node", Method: http.MethodGet, Path: "/v1/nodes/{node}", Summary: "Show a node", Tags: tags,
	}, func(ctx context.Context, in *NodeInput) (*body[v1.Node], error) {
		n, err := a.node(ctx, in.Node)
		return &body[v1.Node]{n}, err
	})
	handle(a, h, huma.Operation{
		OperationID: "get-pool", Method: http.MethodGet, Path: "/v1/pool", Summary: "Show where workers come from, and how many there should be", Tags: tags,
	}, func(ctx context.Context, _ *none) (*body[v1.Pool], error) {
		over, err := a.overview(ctx)
		if err != nil {
			return nil, err
		}
		out := v1.Pool{Name: poolStatic, Count: len(over.Nodes), Wanted: len(over.Nodes), Running: len(over.Nodes), Text: "workers join by themselves"}
		if p := over.Pool; p != nil {
			out = v1.Pool{
				Name: p.Name, Elastic: p.Elastic, Count: p.Count, Min: p.Min, Max: p.Max, Wanted: p.Wanted, Reason: p.Reason, Running: p.Running, Lacking: p.Lacking,
				Busy: p.Busy, Resized: (*v1.PoolResize)(p.Resized), Text: p.String(),
			}
		}
		return &body[v1.Pool]{out}, nil
	})
	handle(a, h, huma.Operation{
		OperationID: "set-node-intent", Method: http.MethodPut, Path: "/v1/nodes/{node}/intent", Summary: "Open, cordon or drain a node", Tags: tags,
		Description: "A cordoned node takes no further instance. A drained one gives its instances up, too: where demand needs them, others are ready elsewhere " +
			"first; then they end what runs, within their function's timeout. The intent outlives restarts.",
	}, a.setIntent)
	handle(a, h, huma.Operation{
		OperationID: "compact-nodes", Method: http.MethodPost, Path: "/v1/nodes/compact", Summary: "Empty nodes whose instances fit elsewhere", Tags: tags,
		Description: "Drains the emptiest nodes whose instances fit on others that run something already, so that they can be given back. With dryRun it only says which.",
	}, a.compact)
}

func (a *API) nodes(ctx context.Context) ([]v1.Node, error) {
	over, err := a.overview(ctx)
	if err != nil {
		return nil, err
	}
	running := map[functions.NodeID]int{}
	for _, i := range over.Instances {
		if !i.State.Gone() {
			running[i.Node]++
		}
	}
	out := make([]v1.Node, 0, len(over.Nodes))
	for _, n := range over.Nodes {
		node := v1.Node{
			ID: n.ID, Name: n.Name, Architecture: n.Architecture, State: nodeState(n, over.At), Intent: cmp.Or(n.Intent, functions.NodeOpen), Reason: n.IntentReason,
			Capacity: n.Capacity, Allocatable: n.Allocatable, Reserved: n.Reserved, CPUUsed: n.CPUUsed, MemoryUsed: n.MemoryUsed,
			Instances: running[n.ID], Pool: cmp.Or(n.Pool, poolStatic), Artifacts: n.Artifacts, Labels: n.Labels, Lacks: n.Lacks, LastSeen: n.LastSeen,
		}
		if d := n.Drain; d != nil {
			node.Drain = &v1.NodeDrain{From: d.From, Left: d.Left, Waits: d.Waits}
		}
		out = append(out, node)
	}
	slices.SortFunc(out, func(x, y v1.Node) int { return cmp.Or(cmp.Compare(x.Name, y.Name), cmp.Compare(x.ID, y.ID)) })
	return out, nil
}

// present are the nodes whose workers have not left: those that have are listed for a while, and have nothing to give.
func present(nodes []bus.NodeStatus) []bus.NodeStatus {
	return slices.DeleteFunc(slices.Clone(nodes), func(n bus.NodeStatus) bool { return n.Departed })
}

func nodeState(n bus.NodeStatus, now time.Time) string {
	switch {
	case n.Departed:
		return "left"
	case now.Sub(n.LastSeen) > lostAfter:
		return "lost"
	case n.Drain != nil && n.Drain.Left == 0:
		return "drained"
	case n.Draining || n.Drain != nil:
		return "draining"
	case n.Cordoned:
		return "cordoned"
	}
	return "ready"
}

func (a *API) node(ctx context.Context, name string) (v1.Node, error) {
	nodes, err := a.nodes(ctx)
	if err != nil {
		return v1.Node{}, err
	}
	var found []v1.Node
	for _, n := range nodes {
		if string(n.ID) == name {
			return n, nil
		}
		if n.Name == name {
			found = append(found, n)
		}
	}
	switch len(found) {
	case 0:
		return v1.Node{}, fault.New(fault.CodeNotFound, "there is no node %q", clip(name)).WithHint("tatami node ls")
	case 1:
		return found[0], nil
	}
	return v1.Node{}, fault.New(fault.CodeInvalidRequest, "%d nodes are called %q", len(found), clip(name)).WithField("node").
		WithHint("give its id: tatami node ls -o wide")
}

// setIntent stores the wish and answers with the node as it is at that moment: the scheduler takes it up within milliseconds.
func (a *API) setIntent(ctx context.Context, in *intentInput) (*body[v1.Node], error) {
	set := functions.NodeSettings{Schema: functions.Schema, Node: functions.NodeID(in.Node), Intent: in.Body.Intent, Reason: in.Body.Reason}
	n, err := a.node(ctx, in.Node)
	switch {
	case err == nil:
		set.Node = n.ID
	case fault.KindOf(err) == fault.NotFound && set.Node.Valid():
		// One that is not heard of may have a wish stored, to be taken back before it returns.
		if stored, _, err := a.deps.Bus.Nodes().Get(ctx, bus.NodeKey(set.Node)); err != nil || stored.Intent == functions.NodeRemoved {
			return nil, fault.New(fault.CodeNotFound, "there is no node %q", in.Node).WithHint("tatami node ls")
		}
		n.ID, n.Name, n.State = set.Node, in.Node, "lost"
	default:
		return nil, err
	}
	if err := set.Validate(); err != nil {
		return nil, err
	}
	table := a.deps.Bus.Nodes()
	if set.Intent == functions.NodeOpen {
		err = table.Delete(ctx, bus.NodeKey(set.Node))
	} else {
		_, err = table.Put(ctx, bus.NodeKey(set.Node), set)
	}
	if err != nil {
		return nil, err
	}
	if err := table.Sync(ctx); err != nil {
		return nil, err
	}
	a.log.Info("node intent set", "node", string(set.Node), "state", string(set.Intent), "reason", set.Reason)
	n.Intent, n.Reason = set.Intent, set.Reason
	return &body[v1.Node]{n}, nil
}
