package main

import (
	"context"
	"strings"
	"time"

	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/gateway/client"
	"github.com/tatami-faas/tatami/internal/fault"
)

// createCaller makes a caller and prints the URL with which it connects, or writes it to a file.
func (a *app) createCaller(ctx context.Context, req v1.CallerTokenRequest, file string) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	t, err := c.CreateCallerToken(ctx, req)
	if err != nil {
		return err
	}
	if file != "" {
		if err := writeSecret(file, t.URL); err != nil {
			return err
		}
		t.Token, t.URL = "", ""
	}
	if a.machine() {
		return a.encode(t)
	}
	if file == "" {
		a.print("%s\n", t.URL)
	}
	a.talk("%s may call the functions of %s with this URL: publish on fn.NAMESPACE.NAME, hear on result.ID\n", t.Caller, namespacesText(t.Namespaces))
	return nil
}

func namespacesText(names []string) string {
	if len(names) == 1 && names[0] == "*" {
		return "all namespaces"
	}
	return strings.Join(names, ", ")
}

// tokenView is a worker's token or a caller's.
type tokenView struct {
	v1.NodeToken
	Caller     string   `json:"caller,omitempty"`
	Namespaces []string `json:"namespaces,omitempty"`
}

// tokenViews lists the tokens of workers and of callers.
func tokenViews(ctx context.Context, c *client.Client) ([]tokenView, error) {
	nodes, err := c.NodeTokens(ctx)
	if err != nil {
		return nil, err
	}
	callers, err := c.CallerTokens(ctx)
	if err != nil {
		return nil, err
	}
	var out []tokenView
	for _, t := range nodes {
		out = append(out, tokenView{NodeToken: t})
	}
	for _, t := range callers {
		out = append(out, tokenView{NodeToken: v1.NodeToken{ID: t.ID, State: t.State, Created: t.Created, Revoked: t.Revoked}, Caller: t.Caller, Namespaces: t.Namespaces})
	}
	return out, nil
}

func tokenColumns(now time.Time) []column[tokenView] {
	return []column[tokenView]{
		{head: "token", cell: func(t tokenView) string { return t.ID }},
		{head: "kind", cell: func(t tokenView) string {
			if t.Caller != "" {
				return "caller"
			}
			return "worker"
		}},
		{head: "for", cell: func(t tokenView) string { return orText(t.Node, t.Caller) }},
		{head: "state", cell: func(t tokenView) string { return t.State }},
		{head: "node", cell: func(t tokenView) string { return string(t.By) }},
		{head: "calls", cell: func(t tokenView) string { return namespacesText(t.Namespaces) }},
		{head: "age", num: true, cell: func(t tokenView) string { return age(now, t.Created) }},
		{head: "expires", wide: true, cell: func(t tokenView) string {
			if t.Expires.IsZero() {
				return ""
			}
			return t.Expires.Local().Format(time.DateTime)
		}},
	}
}

// revokeToken revokes a worker's token, or a caller's where no worker's has the id.
func revokeToken(ctx context.Context, c *client.Client, id string) (tokenView, error) {
	t, err := c.RevokeNodeToken(ctx, id)
	if err == nil {
		return tokenView{NodeToken: *t}, nil
	}
	if fault.KindOf(err) != fault.NotFound {
		return tokenView{}, err
	}
	caller, err := c.RevokeCallerToken(ctx, id)
	if err != nil {
		return tokenView{}, err
	}
	return tokenView{NodeToken: v1.NodeToken{ID: caller.ID, State: caller.State, Created: caller.Created, Revoked: caller.Revoked},
		Caller: caller.Caller, Namespaces: caller.Namespaces}, nil
}
