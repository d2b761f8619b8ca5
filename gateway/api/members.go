package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// tokenLife is how long a token waits for its worker where that is not said.
const tokenLife = 24 * time.Hour

type nodeTokenInput struct{ Body v1.NodeTokenRequest }

// NodeTokenInput names a token in a path.
type NodeTokenInput struct {
	ID string `path:"id" doc:"Id of the token"`
}

type removeNodeInput struct {
	NodeInput
	Force bool `query:"force" doc:"Remove it although instances run on it: they are replaced elsewhere"`
}

func (a *API) registerMembers(h huma.API) {
	tags := []string{"nodes"}
	handle(a, h, huma.Operation{
		OperationID: "create-node-token", Method: http.MethodPost, Path: "/v1/node-tokens", Summary: "Make a token with which one worker may join, once", Tags: tags,
		DefaultStatus: http.StatusCreated, Description: "The token is in this answer only.",
	}, a.createNodeToken)
	handle(a, h, huma.Operation{
		OperationID: "list-node-tokens", Method: http.MethodGet, Path: "/v1/node-tokens", Summary: "List the tokens of workers, oldest first", Tags: tags,
	}, func(context.Context, *none) (*body[[]v1.NodeToken], error) {
		roster, err := a.roster()
		if err != nil {
			return nil, err
		}
		out := []v1.NodeToken{}
		for _, t := range roster.Tokens() {
			out = append(out, nodeToken(t))
		}
		return &body[[]v1.NodeToken]{out}, nil
	})
	handle(a, h, huma.Operation{
		OperationID: "revoke-node-token", Method: http.MethodDelete, Path: "/v1/node-tokens/{id}", Summary: "Revoke a worker's token", Tags: tags,
		Description: "A worker that joined with it is cut off at once, cannot come back, and its instances are replaced elsewhere.",
	}, a.revokeNodeToken)
	handle(a, h, huma.Operation{
		OperationID: "remove-node", Method: http.MethodDelete, Path: "/v1/nodes/{node}", Summary: "Remove a node for good", Tags: tags, DefaultStatus: http.StatusNoContent,
		Description: "Its worker is cut off at once and cannot come back as this node. One with instances is to be drained first.",
	}, a.removeNode)
}

// roster says which workers may join; a fault where none may.
func (a *API) roster() (*bus.Roster, error) {
	if r := a.deps.Bus.Roster(); r != nil {
		return r, nil
	}
	return nil, fault.New(fault.CodeConflict, "no worker may join this server").WithHint("start it with --nats-listen 127.0.0.1:4222")
}

func nodeToken(t bus.JoinToken) v1.NodeToken {
	return v1.NodeToken{ID: t.ID, Node: t.Node, State: t.State(time.Now()), Created: t.Created, Expires: t.Expires, Used: t.Used, By: t.By, Revoked: t.Revoked}
}

func (a *API) createNodeToken(_ context.Context, in *nodeTokenInput) (*body[v1.NodeToken], error) {
	roster, err := a.roster()
	if err != nil {
		return nil, err
	}
	life := in.Body.Expires.Std()
	if life == 0 {
		life = tokenLife
	}
	t, text, err := roster.CreateToken(in.Body.Node, life)
	if err != nil {
		return nil, err
	}
	out := nodeToken(t)
	out.Token, out.Join = text, a.deps.Bus.JoinURL()
	return &body[v1.NodeToken]{out}, nil
}

func (a *API) revokeNodeToken(ctx context.Context, in *NodeTokenInput) (*body[v1.NodeToken], error) {
	roster, err := a.roster()
	if err != nil {
		return nil, err
	}
	t, err := roster.RevokeToken(in.ID)
	if err == nil && t.By != "" {
		err = a.forgetNode(ctx, t.By, "its token was revoked")
	}
	return &body[v1.NodeToken]{nodeToken(t)}, err
}

func (a *API) removeNode(ctx context.Context, in *removeNodeInput) (*none, error) {
	roster, err := a.roster()
	if err != nil {
		return nil, err
	}
	n, err := a.node(ctx, in.Node)
	if id := functions.NodeID(in.Node); fault.KindOf(err) == fault.NotFound && id.Valid() {
		n.ID, n.Name, err = id, in.Node, nil
	}
	switch {
	case err != nil:
		return nil, err
	case n.ID == a.deps.Bus.Identity().Node:
		return nil, fault.New(fault.CodeInvalidRequest, "%s is the server's own node", n.Name).WithField("node").WithHint("tatami up --no-worker runs none")
	case n.Instances > 0 && !in.Force:
		return nil, fault.New(fault.CodeConflict, "%d instances run on %s", n.Instances, n.Name).
			WithHint("empty it first: tatami node drain %s; or have them replaced at once: tatami node rm %s --force", n.Name, n.Name)
	}
	if err := roster.Remove(n.ID, "by an operator"); err != nil {
		return nil, err
	}
	return nil, a.forgetNode(ctx, n.ID, "removed by an operator")
}

// forgetNode has every part let go of a node whose worker was shut out.
func (a *API) forgetNode(ctx context.Context, node functions.NodeID, why string) error {
	set := functions.NodeSettings{Schema: functions.Schema, Node: node, Intent: functions.NodeRemoved, Reason: why}
	if _, err := a.deps.Bus.Nodes().Put(ctx, bus.NodeKey(node), set); err != nil {
		return err
	}
	a.log.Info("node removed", "node", string(node), "reason", why)
	return a.deps.Bus.Nodes().Sync(ctx)
}
