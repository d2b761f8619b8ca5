package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
)

func triggerPath(id functions.Ref) string {
	return "/v1/namespaces/" + url.PathEscape(id.Namespace) + "/triggers/" + url.PathEscape(id.Name)
}

// Triggers lists triggers; namespace and function, where they are not empty, narrow the list.
func (c *Client) Triggers(ctx context.Context, namespace, function string) ([]v1.TriggerView, error) {
	return fetch[[]v1.TriggerView](ctx, c, http.MethodGet, "/v1/triggers"+query("namespace", namespace, "function", function), nil)
}

// Trigger returns a trigger by its own name.
func (c *Client) Trigger(ctx context.Context, id functions.Ref) (*v1.TriggerView, error) {
	return fetchOne[v1.TriggerView](ctx, c, http.MethodGet, triggerPath(id), nil)
}

// SetTrigger makes a trigger, or replaces it as a whole. It returns when the trigger is at work.
func (c *Client) SetTrigger(ctx context.Context, t functions.Trigger) (*v1.TriggerView, error) {
	return fetchOne[v1.TriggerView](ctx, c, http.MethodPut, triggerPath(t.ID()), t)
}

// DeleteTrigger removes a trigger. What it caused goes on.
func (c *Client) DeleteTrigger(ctx context.Context, id functions.Ref) error {
	return c.call(ctx, http.MethodDelete, triggerPath(id), nil, nil)
}

// PauseTrigger pauses a trigger, or lets it go on.
func (c *Client) PauseTrigger(ctx context.Context, id functions.Ref, paused bool) (*v1.TriggerView, error) {
	verb := "/resume"
	if paused {
		verb = "/pause"
	}
	return fetchOne[v1.TriggerView](ctx, c, http.MethodPost, triggerPath(id)+verb, nil)
}

// TryTrigger hands an event over to a trigger, whatever its filters say.
func (c *Client) TryTrigger(ctx context.Context, id functions.Ref, req v1.EmitRequest) (*v1.Emitted, error) {
	return fetchOne[v1.Emitted](ctx, c, http.MethodPost, triggerPath(id)+"/test", req)
}

// DeclareTriggers sets the triggers that a function's file declares, and removes those that it declared before.
func (c *Client) DeclareTriggers(ctx context.Context, r functions.Ref, triggers []functions.Trigger) ([]v1.TriggerView, error) {
	if triggers == nil {
		triggers = []functions.Trigger{}
	}
	return fetch[[]v1.TriggerView](ctx, c, http.MethodPut, functionPath(r)+"/triggers", triggers)
}
