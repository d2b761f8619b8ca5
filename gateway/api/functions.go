package api

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// NamespaceInput is exported, as RefInput is, because embedded inputs are filled only then.
type NamespaceInput struct {
	Namespace string `path:"namespace" doc:"Namespace" example:"default"`
}

// RefInput names a function in a path.
type RefInput struct {
	NamespaceInput
	Name string `path:"name" doc:"Name of the function" example:"hello"`
}

func (r *RefInput) ref() (functions.Ref, error) {
	ref := functions.Ref{Namespace: r.Namespace, Name: r.Name}
	return ref, ref.Validate()
}

type rollbackInput struct {
	RefInput
	Body *v1.RollbackRequest
}

type revisionInput struct {
	RefInput
	Revision functions.RevisionID `path:"revision" doc:"Id of the revision"`
}

const functionPath = "/v1/namespaces/{namespace}/functions/{name}"

func (a *API) registerFunctions(h huma.API) {
	tags := []string{"functions"}
	handle(a, h, huma.Operation{
		OperationID: "list-functions", Method: http.MethodGet, Path: "/v1/functions", Summary: "List the functions of all namespaces", Tags: tags,
	}, func(ctx context.Context, _ *none) (*body[[]v1.Function], error) { return a.listFunctions(ctx, "") })
	handle(a, h, huma.Operation{
		OperationID: "list-namespace-functions", Method: http.MethodGet, Path: "/v1/namespaces/{namespace}/functions",
		Summary: "List the functions of a namespace", Tags: tags,
	}, func(ctx context.Context, in *NamespaceInput) (*body[[]v1.Function], error) {
		if err := functions.ValidateName("namespace", in.Namespace); err != nil {
			return nil, err
		}
		return a.listFunctions(ctx, in.Namespace)
	})
	handle(a, h, huma.Operation{
		OperationID: "get-function", Method: http.MethodGet, Path: functionPath, Summary: "Show a function", Tags: tags,
	}, a.getFunction)
	handle(a, h, huma.Operation{
		OperationID: "deploy", Method: http.MethodPut, Path: functionPath, Summary: "Deploy a function", Tags: tags, MaxBodyBytes: 2 << 20,
		Description: "Makes a revision of an uploaded artifact or an image, starts an instance of it and moves the traffic when that is ready. " +
			"The answer comes then. Leaving earlier undoes nothing; the same content deployed again changes nothing.",
	}, a.deploy)
	handle(a, h, huma.Operation{
		OperationID: "delete-function", Method: http.MethodDelete, Path: functionPath, Summary: "Delete a function", Tags: tags, DefaultStatus: http.StatusNoContent,
		Description: "Removes the function and its revisions. Its queued invocations die with the reason.",
	}, a.deleteFunction)
	handle(a, h, huma.Operation{
		OperationID: "rollback", Method: http.MethodPost, Path: functionPath + "/rollback", Summary: "Move the traffic to an earlier revision", Tags: tags,
	}, a.rollback)
	handle(a, h, huma.Operation{
		OperationID: "list-revisions", Method: http.MethodGet, Path: functionPath + "/revisions", Summary: "List the revisions of a function, newest first", Tags: tags,
	}, a.listRevisions)
	handle(a, h, huma.Operation{
		OperationID: "get-revision", Method: http.MethodGet, Path: functionPath + "/revisions/{revision}", Summary: "Show a revision", Tags: tags,
	}, a.getRevision)
	handle(a, h, huma.Operation{
		OperationID: "explain-function", Method: http.MethodGet, Path: functionPath + "/explain", Summary: "Say why a function has the instances it has", Tags: tags,
	}, func(ctx context.Context, in *RefInput) (*body[v1.Explanation], error) {
		ref, err := in.ref()
		if err != nil {
			return nil, err
		}
		if _, _, err := a.function(ctx, ref); err != nil {
			return nil, err
		}
		out, err := a.explain(ctx, bus.ExplainRequest{Schema: bus.Schema, Function: &ref})
		if err == nil {
			err = a.tellBounds(ctx, ref.Namespace, &out.Body)
		}
		return out, err
	})
}

// function reads a function's record, and its revision in the bucket.
func (a *API) function(ctx context.Context, ref functions.Ref) (functions.Function, uint64, error) {
	fn, kv, err := a.deps.Bus.Functions().Get(ctx, bus.FunctionKey(ref))
	if fault.KindOf(err) == fault.NotFound {
		err = fault.New(fault.CodeFunctionNotFound, "there is no function %s", ref).WithHint("tatami fn ls")
	}
	return fn, kv, err
}

func noRevision(ref functions.Ref, id functions.RevisionID) error {
	return fault.New(fault.CodeNotFound, "%s has no revision %s", ref, clip(string(id))).WithHint("tatami rev ls %s", ref)
}

func (a *API) listFunctions(ctx context.Context, namespace string) (*body[[]v1.Function], error) {
	match := ""
	if namespace != "" {
		match = namespace + ".*"
	}
	entries, err := a.deps.Bus.Functions().List(ctx, match)
	if err != nil {
		return nil, err
	}
	out := make([]v1.Function, 0, len(entries))
	live := a.liveView(ctx)
	for _, e := range entries {
		if !pinned(e.Key) {
			out = append(out, live.function(ctx, a, e.Value))
		}
	}
	slices.SortFunc(out, func(x, y v1.Function) int {
		return cmp.Or(cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(x.Name, y.Name))
	})
	return &body[[]v1.Function]{out}, nil
}

// pinned reports whether a key of the bucket of functions is that of a pinned revision, which is no function to be shown.
func pinned(key string) bool {
	_, name, _ := strings.Cut(key, ".")
	_, _, ok := functions.Ref{Name: name}.PinnedTo()
	return ok
}

func (a *API) getFunction(ctx context.Context, in *RefInput) (*body[v1.Function], error) {
	ref, err := in.ref()
	if err != nil {
		return nil, err
	}
	fn, _, err := a.function(ctx, ref)
	if err != nil {
		return nil, err
	}
	out := a.liveView(ctx).function(ctx, a, fn)
	id := cmp.Or(fn.Live, fn.Candidate)
	if n := len(fn.Revisions); id == "" && n > 0 {
		id = fn.Revisions[n-1]
	}
	if id != "" {
		rev, _, err := a.deps.Bus.Revisions().Get(ctx, bus.RevisionKey(ref, id))
		if err != nil && fault.KindOf(err) != fault.NotFound {
			return nil, err
		}
		if err == nil {
			r := revisionOf(rev, fn)
			out.Current = &r
		}
	}
	return &body[v1.Function]{out}, nil
}

// view is what is known of the functions beside their records. Where a part does not answer, its share is missing.
type view struct {
	status  map[functions.Ref]bus.FunctionStatus
	traffic map[functions.Ref]v1.Traffic
	queue   map[functions.Ref]v1.QueueDepth
	// without are the servers whose traffic is missing.
	without []string
}

func (a *API) liveView(ctx context.Context) view {
	v := view{status: map[functions.Ref]bus.FunctionStatus{}, traffic: map[functions.Ref]v1.Traffic{}, queue: a.deps.Queue.Depths()}
	if over, err := a.overview(ctx); err == nil {
		for _, f := range over.Functions {
			v.status[functions.Ref{Namespace: f.Namespace, Name: f.Function}] = f
		}
	}
	traffic := a.deps.Traffic(ctx)
	for _, t := range traffic.Functions {
		v.traffic[t.Ref] = t.Traffic
	}
	v.without = without(Servers(a.deps.Bus.Servers(), "", traffic))
	return v
}

func (v view) function(ctx context.Context, a *API, fn functions.Function) v1.Function {
	ref := fn.Ref()
	s, traffic := v.status[ref], v.traffic[ref]
	traffic.Without = v.without
	return v1.Function{
		Namespace: fn.Namespace, Name: fn.Name, URL: a.functionURL(ctx, ref), Live: fn.Live, Candidate: fn.Candidate, Previous: fn.Previous,
		Revisions: fn.Revisions, Created: fn.Created, Updated: fn.Updated,
		Instances: v1.InstanceCounts{Desired: s.Desired, Starting: s.Starting, Ready: s.Ready, Frozen: s.Frozen, Draining: s.Draining},
		Traffic:   traffic, Queue: v.queue[ref], Reason: s.Reason, Pending: s.Pending,
	}
}

func (a *API) listRevisions(ctx context.Context, in *RefInput) (*body[[]v1.Revision], error) {
	ref, err := in.ref()
	if err != nil {
		return nil, err
	}
	fn, _, err := a.function(ctx, ref)
	if err != nil {
		return nil, err
	}
	entries, err := a.deps.Bus.Revisions().List(ctx, bus.RevisionsOf(ref))
	if err != nil {
		return nil, err
	}
	out := make([]v1.Revision, 0, len(entries))
	for _, e := range entries {
		if slices.Contains(fn.Revisions, e.Value.ID) {
			out = append(out, revisionOf(e.Value, fn))
		}
	}
	slices.SortFunc(out, func(x, y v1.Revision) int {
		return cmp.Compare(slices.Index(fn.Revisions, y.ID), slices.Index(fn.Revisions, x.ID))
	})
	return &body[[]v1.Revision]{out}, nil
}

func (a *API) getRevision(ctx context.Context, in *revisionInput) (*body[v1.Revision], error) {
	ref, err := in.ref()
	if err != nil {
		return nil, err
	}
	fn, _, err := a.function(ctx, ref)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(fn.Revisions, in.Revision) {
		return nil, noRevision(ref, in.Revision)
	}
	rev, _, err := a.deps.Bus.Revisions().Get(ctx, bus.RevisionKey(ref, in.Revision))
	if fault.KindOf(err) == fault.NotFound {
		return nil, noRevision(ref, in.Revision)
	}
	if err != nil {
		return nil, err
	}
	return &body[v1.Revision]{revisionOf(rev, fn)}, nil
}

func revisionOf(r functions.Revision, fn functions.Function) v1.Revision {
	if r.State == functions.RevisionPending && r.ID != fn.Candidate {
		r.State = v1.RevisionSuperseded
	}
	return v1.Revision{
		ID: r.ID, Namespace: r.Namespace, Function: r.Function, State: r.State, Live: r.ID == fn.Live, Reason: r.Reason, Logs: r.Logs,
		Artifact: r.Artifact, Config: r.Config, Created: r.Created,
	}
}

func (a *API) deleteFunction(ctx context.Context, in *RefInput) (*none, error) {
	ref, err := in.ref()
	if err != nil {
		return nil, err
	}
	gone, err := a.removeRecords(ctx, ref)
	if err != nil {
		return nil, err
	}
	b := a.deps.Bus
	if err := b.Barrier(ctx, b.Functions().Stream(), b.Revisions().Stream()); err != nil {
		return nil, err
	}
	if err := a.deps.Routes.WaitApplied(ctx, gone); err != nil {
		return nil, err
	}
	a.sweepSoon()
	a.log.Info("delete", "fn", ref.String())
	return &none{}, nil
}

// removePinned deletes the records of a function's pinned revisions.
func (a *API) removePinned(ctx context.Context, ref functions.Ref) error {
	all, err := a.deps.Bus.Functions().List(ctx, ref.Namespace+".*")
	if err != nil {
		return err
	}
	for _, e := range all {
		if of, _, ok := e.Value.Ref().PinnedTo(); !ok || of != ref {
			continue
		}
		if err := a.deps.Bus.Functions().Delete(ctx, e.Key); err != nil {
			return err
		}
		if err := a.deps.Bus.Revisions().Delete(ctx, bus.RevisionKey(e.Value.Ref(), e.Value.Live)); err != nil {
			return err
		}
	}
	return nil
}

// removeRecords deletes a function's records and returns the revision of the bucket at which the function is gone.
func (a *API) removeRecords(ctx context.Context, ref functions.Ref) (uint64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	ctx = context.WithoutCancel(ctx)
	a.records.Lock()
	defer a.records.Unlock()
	if _, _, err := a.function(ctx, ref); err != nil {
		return 0, err
	}
	gone, err := a.deleteSeen(ctx, bus.FunctionKey(ref))
	if err != nil {
		return 0, err
	}
	revisions, err := a.deps.Bus.Revisions().List(ctx, bus.RevisionsOf(ref))
	if err != nil {
		return 0, err
	}
	for _, e := range revisions {
		if err := a.deps.Bus.Revisions().Delete(ctx, e.Key); err != nil {
			return 0, err
		}
	}
	if err := a.removePinned(ctx, ref); err != nil {
		return 0, err
	}
	triggers, err := a.triggersOf(ctx, ref, func(*functions.Trigger) bool { return true })
	if err != nil {
		return 0, err
	}
	ids := make([]functions.Ref, len(triggers))
	for i := range triggers {
		ids[i] = triggers[i].ID()
	}
	return gone, a.dropTriggers(ctx, ids...)
}

// deleteSeen deletes a function's record and returns the revision of the deletion, which only a watch tells.
func (a *API) deleteSeen(ctx context.Context, key string) (gone uint64, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var failed error
	err = a.deps.Bus.Functions().Watch(ctx, key, func(e bus.Event[functions.Function]) {
		switch {
		case e.Synced:
			if failed = a.deps.Bus.Functions().Delete(ctx, key); failed != nil {
				cancel()
			}
		case e.Deleted:
			gone = e.Revision
			cancel()
		}
	})
	if failed != nil {
		err = failed
	}
	return gone, err
}
