package api

import (
	"context"
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// QuotaName names a quota in a path.
type QuotaName struct {
	Namespace string `path:"namespace" doc:"A namespace, _defaults for what holds where a namespace has no bound of its own, or _total for all namespaces together"`
}

func (n QuotaName) check() error {
	return functions.Quota{Namespace: n.Namespace}.Validate()
}

type quotaInput struct {
	QuotaName
	Body functions.Quota
}

func (a *API) registerQuotas(h huma.API) {
	tags := []string{"quotas"}
	handle(a, h, huma.Operation{
		OperationID: "list-quotas", Method: http.MethodGet, Path: "/v1/quotas", Summary: "List the namespaces with their quotas and what they use", Tags: tags,
		Description: "Lists every namespace that has a quota, functions or instances; the defaults and the total where they are set.",
	}, a.listQuotas)
	handle(a, h, huma.Operation{
		OperationID: "get-quota", Method: http.MethodGet, Path: "/v1/quotas/{namespace}", Summary: "Show the quota of a namespace", Tags: tags,
	}, func(ctx context.Context, in *QuotaName) (*body[v1.NamespaceQuota], error) {
		if err := in.check(); err != nil {
			return nil, err
		}
		return a.showQuota(ctx, in.Namespace)
	})
	handle(a, h, huma.Operation{
		OperationID: "set-quota", Method: http.MethodPut, Path: "/v1/quotas/{namespace}", Summary: "Set the quota of a namespace", Tags: tags,
		Description: "Replaces the quota as a whole. A bound that is 0 or left out is taken from the defaults, one that is -1 is none. What runs already is not stopped.",
	}, a.setQuota)
	handle(a, h, huma.Operation{
		OperationID: "delete-quota", Method: http.MethodDelete, Path: "/v1/quotas/{namespace}", Summary: "Take a quota back", Tags: tags, DefaultStatus: http.StatusNoContent,
		Description: "The defaults hold for the namespace again. It is no error where it has no quota.",
	}, func(ctx context.Context, in *QuotaName) (*none, error) {
		if err := in.check(); err != nil {
			return nil, err
		}
		if err := a.deps.Bus.Quotas().Delete(ctx, bus.QuotaKey(in.Namespace)); err != nil {
			return nil, err
		}
		a.log.Info("quota taken back", "namespace", in.Namespace)
		return nil, a.deps.Bus.Quotas().Sync(ctx)
	})
}

// quotas are the records of quotas.
type quotas map[string]functions.Quota

// own returns what is set for a namespace; nothing where there is no record.
func (q quotas) own(namespace string) functions.Quota {
	own := q[namespace]
	own.Schema, own.Namespace = functions.Schema, namespace
	return own
}

// effective returns what holds for a namespace. The defaults and the total have no defaults.
func (q quotas) effective(namespace string) functions.Quota {
	switch namespace {
	case functions.QuotaDefaults, functions.QuotaTotal:
		out := q.own(namespace).Over(functions.Quota{})
		if namespace == functions.QuotaTotal {
			out.Weight = 0
		}
		return out
	}
	return q.own(namespace).Over(q[functions.QuotaDefaults])
}

func (a *API) quotas(ctx context.Context) (quotas, error) {
	list, err := a.deps.Bus.Quotas().List(ctx, "")
	if err != nil {
		return nil, err
	}
	out := quotas{}
	for _, q := range list {
		out[q.Key] = q.Value
	}
	return out, nil
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
	all, err := a.quotas(ctx)
	if err != nil {
		return nil, err
	}
	used, err := a.usage(ctx)
	if err != nil {
		return nil, err
	}
	return &body[v1.NamespaceQuota]{all.account(namespace, used)}, nil
}

// account is a namespace's quota beside what is used of it.
func (q quotas) account(namespace string, used map[string]v1.QuotaUse) v1.NamespaceQuota {
	out := v1.NamespaceQuota{Namespace: namespace, Own: q.own(namespace), Effective: q.effective(namespace), Used: used[namespace]}
	if namespace == functions.QuotaDefaults {
		return out
	}
	out.Headroom = out.Used.Left(out.Effective).Within(used[functions.QuotaTotal].Left(q.effective(functions.QuotaTotal)))
	return out
}

// usage is what each namespace uses, and the sum of it under QuotaTotal. Where the scheduler does not answer, instances are missing from it.
func (a *API) usage(ctx context.Context) (map[string]v1.QuotaUse, error) {
	out := map[string]v1.QuotaUse{}
	add := func(namespace string, u v1.QuotaUse) {
		out[namespace] = out[namespace].Plus(u)
		out[functions.QuotaTotal] = out[functions.QuotaTotal].Plus(u)
	}
	fns, err := a.deps.Bus.Functions().Keys(ctx, "")
	if err != nil {
		return nil, err
	}
	for _, key := range fns {
		if pinned(key) {
			continue
		}
		ns, _, _ := strings.Cut(key, ".")
		add(ns, v1.QuotaUse{Functions: 1})
	}
	if over, err := a.overview(ctx); err == nil {
		for _, n := range over.Namespaces {
			if n.Used != (functions.Resources{}) {
				add(n.Namespace, v1.QuotaUse{CPU: n.Used.CPU, Memory: n.Used.Memory, Instances: n.Used.Instances})
			}
		}
	}
	for _, t := range a.deps.Traffic(ctx).Functions {
		if u := (v1.QuotaUse{Concurrent: int64(t.InFlight), Rate: t.RPS}); u != (v1.QuotaUse{}) {
			add(t.Ref.Namespace, u)
		}
	}
	for namespace, u := range out {
		u.Rate = math.Round(u.Rate*100) / 100
		out[namespace] = u
	}
	return out, nil
}

func (a *API) listQuotas(ctx context.Context, _ *none) (*body[[]v1.NamespaceQuota], error) {
	all, err := a.quotas(ctx)
	if err != nil {
		return nil, err
	}
	used, err := a.usage(ctx)
	if err != nil {
		return nil, err
	}
	names := slices.AppendSeq(slices.Collect(maps.Keys(all)), maps.Keys(used))
	if _, set := all[functions.QuotaTotal]; !set {
		names = slices.DeleteFunc(names, func(n string) bool { return n == functions.QuotaTotal })
	}
	slices.Sort(names)
	out := make([]v1.NamespaceQuota, 0, len(names))
	for _, n := range slices.Compact(names) {
		out = append(out, all.account(n, used))
	}
	return &body[[]v1.NamespaceQuota]{out}, nil
}
