package api

import (
	"cmp"
	"context"
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

type quotaInput struct {
	NamespaceInput
	Body functions.Quota
}

func (a *API) registerQuotas(h huma.API) {
	tags := []string{"quotas"}
	handle(a, h, huma.Operation{
		OperationID: "list-quotas", Method: http.MethodGet, Path: "/v1/quotas", Summary: "List the namespaces with their quotas and what they use", Tags: tags,
	}, a.listQuotas)
	handle(a, h, huma.Operation{
		OperationID: "get-quota", Method: http.MethodGet, Path: "/v1/quotas/{namespace}", Summary: "Show the quota of a namespace", Tags: tags,
	}, func(ctx context.Context, in *NamespaceInput) (*body[v1.NamespaceQuota], error) {
		if err := functions.ValidateName("namespace", in.Namespace); err != nil {
			return nil, err
		}
		return a.showQuota(ctx, in.Namespace)
	})
	handle(a, h, huma.Operation{
		OperationID: "set-quota", Method: http.MethodPut, Path: "/v1/quotas/{namespace}", Summary: "Set the quota of a namespace", Tags: tags,
		Description: "Replaces the quota as a whole; a bound that is 0 or left out is none. What runs already is not stopped.",
	}, a.setQuota)
}

// quota returns the quota of a namespace; one without bounds where there is none.
func (a *API) quota(ctx context.Context, namespace string) (functions.Quota, error) {
	q, _, err := a.deps.Bus.Quotas().Get(ctx, bus.QuotaKey(namespace))
	if fault.KindOf(err) == fault.NotFound {
		return functions.Quota{Schema: functions.Schema, Namespace: namespace}, nil
	}
	return q, err
}

func (a *API) setQuota(ctx context.Context, in *quotaInput) (*body[v1.NamespaceQuota], error) {
	q := in.Body
	if q.Namespace != "" && q.Namespace != in.Namespace {
		return nil, fault.New(fault.CodeInvalidRequest, "the quota is of namespace %q, the path says %q", q.Namespace, in.Namespace).WithField("namespace")
	}
	q.Schema, q.Namespace = functions.Schema, in.Namespace
	if err := q.Validate(); err != nil {
		return nil, err
	}
	if _, err := a.deps.Bus.Quotas().Put(ctx, bus.QuotaKey(q.Namespace), q); err != nil {
		return nil, err
	}
	if err := a.deps.Bus.Quotas().Sync(ctx); err != nil {
		return nil, err
	}
	a.log.Info("quota set", "namespace", q.Namespace)
	return a.showQuota(ctx, q.Namespace)
}

func (a *API) showQuota(ctx context.Context, namespace string) (*body[v1.NamespaceQuota], error) {
	q, err := a.quota(ctx, namespace)
	if err != nil {
		return nil, err
	}
	used, err := a.usage(ctx)
	if err != nil {
		return nil, err
	}
	out := v1.NamespaceQuota{Quota: q}
	if u := used[namespace]; u != nil {
		out.Used, out.UsedFunctions = u.Used, u.UsedFunctions
	}
	return &body[v1.NamespaceQuota]{out}, nil
}

// usage is what each namespace uses. Where the scheduler does not answer, instances are missing from it.
func (a *API) usage(ctx context.Context) (map[string]*v1.NamespaceQuota, error) {
	out := map[string]*v1.NamespaceQuota{}
	at := func(namespace string) *v1.NamespaceQuota {
		if out[namespace] == nil {
			out[namespace] = &v1.NamespaceQuota{Quota: functions.Quota{Schema: functions.Schema, Namespace: namespace}}
		}
		return out[namespace]
	}
	fns, err := a.deps.Bus.Functions().List(ctx, "")
	if err != nil {
		return nil, err
	}
	for _, f := range fns {
		at(f.Value.Namespace).UsedFunctions++
	}
	if over, err := a.overview(ctx); err == nil {
		for _, n := range over.Namespaces {
			if n.Used != (functions.Resources{}) {
				at(n.Namespace).Used = n.Used
			}
		}
	}
	return out, nil
}

func (a *API) listQuotas(ctx context.Context, _ *none) (*body[[]v1.NamespaceQuota], error) {
	all, err := a.usage(ctx)
	if err != nil {
		return nil, err
	}
	quotas, err := a.deps.Bus.Quotas().List(ctx, "")
	if err != nil {
		return nil, err
	}
	for _, q := range quotas {
		if all[q.Key] == nil {
			all[q.Key] = &v1.NamespaceQuota{}
		}
		all[q.Key].Quota = q.Value
	}
	out := make([]v1.NamespaceQuota, 0, len(all))
	for _, q := range all {
		out = append(out, *q)
	}
	slices.SortFunc(out, func(x, y v1.NamespaceQuota) int { return cmp.Compare(x.Namespace, y.Namespace) })
	return &body[[]v1.NamespaceQuota]{out}, nil
}
