package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
)

func (a *API) registerToken(h huma.API) {
	if a.deps.Auth == nil {
		return
	}
	tags := []string{"access"}
	handle(a, h, huma.Operation{
		OperationID: "get-token", Method: http.MethodGet, Path: "/v1/token", Summary: "Show the token", Tags: tags,
	}, func(context.Context, *none) (*body[v1.Token], error) {
		return &body[v1.Token]{v1.Token{Token: a.deps.Auth.Token()}}, nil
	})
	handle(a, h, huma.Operation{
		OperationID: "rotate-token", Method: http.MethodPost, Path: "/v1/token/rotate", Summary: "Replace the token", Tags: tags,
		Description: "The old token, every dashboard session and every link end at once.",
	}, func(ctx context.Context, _ *none) (*body[v1.Token], error) {
		t, err := a.deps.Auth.Rotate(ctx)
		if err != nil {
			return nil, err
		}
		a.log.Info("token rotated")
		return &body[v1.Token]{v1.Token{Token: t}}, nil
	})
	handle(a, h, huma.Operation{
		OperationID: "dashboard-link", Method: http.MethodPost, Path: "/v1/token/link", Summary: "Make a link that opens the dashboard once", Tags: tags,
	}, func(ctx context.Context, _ *none) (*body[v1.Link], error) {
		path, expires := a.deps.Auth.Link()
		out := v1.Link{Path: path, Expires: expires}
		if base := a.info(ctx).ControlURL; base != "" {
			out.URL = base + path
		}
		return &body[v1.Link]{out}, nil
	})
}
