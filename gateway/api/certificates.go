package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

type rotateInput struct{ Body v1.RotateRequest }

func (a *API) registerCertificates(h huma.API) {
	tags := []string{"access"}
	handle(a, h, huma.Operation{
		OperationID: "list-certificates", Method: http.MethodGet, Path: "/v1/certificates", Summary: "List the certificates of servers and workers", Tags: tags,
	}, func(ctx context.Context, _ *none) (*body[v1.Certificates], error) {
		out, err := a.certificates(ctx)
		return &body[v1.Certificates]{out}, err
	})
	handle(a, h, huma.Operation{
		OperationID: "rotate-authority", Method: http.MethodPost, Path: "/v1/certificates/rotate", Summary: "Replace the certificate authority", Tags: tags,
		Description: "Servers and workers get certificates of another authority while their connections stay. The one before is trusted until everybody has followed; " +
			"with now it is not from that moment on, and whoever is away has to be given a new token.",
	}, func(ctx context.Context, in *rotateInput) (*body[v1.Certificates], error) {
		c, err := a.certificateDesk()
		if err != nil {
			return nil, err
		}
		if err := c.Rotate(in.Body.Now); err != nil {
			return nil, err
		}
		out, err := a.certificates(ctx)
		return &body[v1.Certificates]{out}, err
	})
}

// certificateDesk knows the certificates; a fault where there are none.
func (a *API) certificateDesk() (*bus.Certificates, error) {
	if c := a.deps.Bus.Certificates(); c != nil {
		return c, nil
	}
	return nil, fault.New(fault.CodeConflict, "no worker may join this server, so there are no certificates").WithHint("start it with --nats-listen 127.0.0.1:4222")
}

func (a *API) certificates(ctx context.Context) (v1.Certificates, error) {
	c, err := a.certificateDesk()
	if err != nil {
		return v1.Certificates{}, err
	}
	names := map[functions.NodeID]string{}
	// Certificates are told of although the scheduler does not answer.
	if over, err := a.overview(ctx); err == nil {
		for _, n := range over.Nodes {
			names[n.ID] = n.Name
		}
	}
	now, before := c.Authorities()
	out := v1.Certificates{Authorities: []v1.Authority{{Pin: now.Trust().Pin(), State: "certifies", Since: now.Began()}}, Waits: c.Waits()}
	if before != nil {
		out.Authorities = append(out.Authorities, v1.Authority{Pin: before.Trust().Pin(), State: "retiring", Since: before.Began()})
	}
	for _, cert := range c.List() {
		v := v1.Certificate{Serial: cert.Serial, Role: "server", Server: cert.Who, Until: cert.Until, State: "current"}
		if cert.Node {
			v.Role, v.Server, v.Node = "worker", "", functions.NodeID(cert.Who)
			v.Name = names[v.Node]
		}
		if len(cert.Trusts) > 0 {
			v.Authority = cert.Trusts[0]
		}
		switch {
		case cert.Serial == "":
			v.State = "away"
		case cert.Behind:
			v.State = "behind"
		}
		out.Certificates = append(out.Certificates, v)
	}
	return out, nil
}
