package api

import (
	"context"
	"net/http"
	"net/url"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

type callerTokenInput struct{ Body v1.CallerTokenRequest }

func (a *API) registerCallers(h huma.API) {
	tags := []string{"access"}
	handle(a, h, huma.Operation{
		OperationID: "create-caller-token", Method: http.MethodPost, Path: "/v1/caller-tokens", Summary: "Let somebody call functions over NATS", Tags: tags,
		DefaultStatus: http.StatusCreated, Description: "The password is in this answer only. It is good until it is revoked.",
	}, a.createCallerToken)
	handle(a, h, huma.Operation{
		OperationID: "list-caller-tokens", Method: http.MethodGet, Path: "/v1/caller-tokens", Summary: "List who may call functions over NATS, oldest first", Tags: tags,
	}, func(context.Context, *none) (*body[[]v1.CallerToken], error) {
		callers, err := a.callers()
		if err != nil {
			return nil, err
		}
		out := []v1.CallerToken{}
		for _, c := range callers.List() {
			out = append(out, callerToken(c))
		}
		return &body[[]v1.CallerToken]{out}, nil
	})
	handle(a, h, huma.Operation{
		OperationID: "revoke-caller-token", Method: http.MethodDelete, Path: "/v1/caller-tokens/{id}", Summary: "Shut a caller out", Tags: tags,
		Description: "Its connections end at once. What it handed over goes on.",
	}, func(_ context.Context, in *NodeTokenInput) (*body[v1.CallerToken], error) {
		callers, err := a.callers()
		if err != nil {
			return nil, err
		}
		c, err := callers.Revoke(in.ID)
		return &body[v1.CallerToken]{callerToken(c)}, err
	})
}

// callers says who may call over NATS; a fault where nobody may.
func (a *API) callers() (*bus.Callers, error) {
	if c := a.deps.Bus.Callers(); c != nil {
		return c, nil
	}
	return nil, fault.New(fault.CodeConflict, "no NATS client may connect to this server").WithHint("start it with --nats-listen 127.0.0.1:4222")
}

func callerToken(c bus.Caller) v1.CallerToken {
	out := v1.CallerToken{ID: c.ID, Caller: c.Name, Namespaces: c.Namespaces, State: "active", Created: c.Created, Revoked: c.Revoked}
	if !c.Revoked.IsZero() {
		out.State = "revoked"
	}
	return out
}

func (a *API) createCallerToken(_ context.Context, in *callerTokenInput) (*body[v1.CallerToken], error) {
	callers, err := a.callers()
	if err != nil {
		return nil, err
	}
	namespaces := in.Body.Namespaces
	if len(namespaces) == 0 {
		namespaces = []string{functions.DefaultNamespace}
	}
	c, password, err := callers.Create(in.Body.Caller, namespaces)
	if err != nil {
		return nil, err
	}
	out := callerToken(c)
	out.Token = password
	if u, err := url.Parse(a.deps.Bus.ListenURL()); err == nil {
		u.User = url.UserPassword(c.ID, password)
		out.URL = u.String()
	}
	return &body[v1.CallerToken]{out}, nil
}
