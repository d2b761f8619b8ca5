package queue

import (
	"context"
	"log/slog"
	"net/http"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/invoke"
	"github.com/tatami-faas/tatami/internal/bus"
)

// New makes a queue that runs functions through the gateway's data path. It starts nothing.
func New(cfg Config, b *bus.Bus, inv *invoke.Invoker, log *slog.Logger) (*Queue, error) {
	return NewOver(cfg, b, overInvoker{inv}, log)
}

// overInvoker is the gateway's own DataPath.
type overInvoker struct{ inv *invoke.Invoker }

func (o overInvoker) Lookup(ctx context.Context, ref functions.Ref) (*functions.Revision, error) {
	return o.inv.Lookup(ctx, ref)
}

func (o overInvoker) SetBacklog(ref functions.Ref, n int) { o.inv.SetBacklog(ref, n) }

func (o overInvoker) Lease(ctx context.Context, ref functions.Ref) (Lease, error) {
	l, err := o.inv.Lease(ctx, ref, invoke.Async)
	if err != nil {
		return nil, err
	}
	return overLease{l}, nil
}

type overLease struct{ l *invoke.Lease }

func (o overLease) RoundTrip(r *http.Request) (*http.Response, error) { return o.l.RoundTrip(r) }
func (o overLease) RoundTripAs(r *http.Request, id functions.InvocationID, attempt int) (*http.Response, error) {
	return o.l.RoundTripAs(r, id, attempt)
}
func (o overLease) HangUp() (told, sent bool)      { return o.l.HangUp() }
func (o overLease) End(reason string) error        { return o.l.End(reason) }
func (o overLease) Release()                       { o.l.Release() }
func (o overLease) Revision() *functions.Revision  { return o.l.Revision() }
func (o overLease) Instance() functions.InstanceID { return o.l.Endpoint().Instance }
func (o overLease) Cold() bool                     { return o.l.Cold() }
