package api

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/internal/fault"
)

const defaultListed = 100

type queueListInput struct {
	QueueInput
	State functions.InvocationState `query:"state" enum:"accepted,scheduled,running,retry-wait" doc:"Invocations in this state only"`
	Limit int                       `query:"limit" minimum:"1" maximum:"1000" doc:"How many at most; 100 where it is left out"`
}

type deadListInput struct {
	QueueInput
	Limit int `query:"limit" minimum:"1" maximum:"1000" doc:"How many at most; 100 where it is left out"`
}

type invocationInput struct {
	Invocation functions.InvocationID `path:"invocation" doc:"Id of the invocation"`
}

func (in *invocationInput) check() error {
	if _, ok := in.Invocation.FunctionHash(); ok {
		return nil
	}
	return fault.New(fault.CodeInvalidRequest, "%q is no invocation's id", clip(string(in.Invocation))).WithField("invocation").
		WithHint("tatami queue show FUNCTION")
}

type againInput struct {
	Invocation functions.InvocationID `path:"invocation" doc:"Id of the invocation"`
	Revision   functions.RevisionID   `query:"revision" doc:"The revision to run on; the live one where it is left out"`
}

func (in *againInput) check() error {
	named := invocationInput{in.Invocation}
	if err := named.check(); err != nil || in.Revision == "" || in.Revision.Valid() {
		return err
	}
	return fault.New(fault.CodeInvalidRequest, "%q is no revision's id", clip(string(in.Revision))).WithField("revision").WithHint("tatami rev ls FUNCTION")
}

type endedInput struct {
	RefInput
	From  time.Time `query:"from" doc:"Leave out what was accepted earlier"`
	To    time.Time `query:"to" doc:"Leave out what was accepted then or later"`
	Limit int       `query:"limit" minimum:"1" maximum:"1000" doc:"How many at most, the latest; 100 where it is left out"`
}

// listEnded does not ask whether the function exists: the results of its invocations outlive it.
func (a *API) listEnded(ctx context.Context, in *endedInput) (*body[[]v1.InvocationStatus], error) {
	ref, err := in.ref()
	if err != nil {
		return nil, err
	}
	to := in.To
	if to.IsZero() {
		to = time.Now()
	}
	out, err := a.deps.Queue.Ended(ctx, ref, in.From, to, cmp.Or(in.Limit, defaultListed))
	return &body[[]v1.InvocationStatus]{append([]v1.InvocationStatus{}, out...)}, err
}

func (a *API) registerQueue(h huma.API) {
	tags := []string{"queue"}
	handle(a, h, huma.Operation{
		OperationID: "list-queues", Method: http.MethodGet, Path: "/v1/queues", Summary: "List the queues that are not empty", Tags: tags,
	}, a.listQueues)
	handle(a, h, huma.Operation{
		OperationID: "get-queue", Method: http.MethodGet, Path: functionPath + "/queue", Summary: "Show the depth of a function's queue", Tags: tags,
	}, func(ctx context.Context, in *QueueInput) (*body[v1.FunctionQueue], error) {
		ref, err := a.existing(ctx, in)
		if err != nil {
			return nil, err
		}
		return &body[v1.FunctionQueue]{v1.FunctionQueue{Namespace: ref.Namespace, Function: ref.Name, QueueDepth: a.deps.Queue.Depths()[ref]}}, nil
	})
	handle(a, h, huma.Operation{
		OperationID: "list-queued", Method: http.MethodGet, Path: functionPath + "/queue/invocations", Summary: "List invocations that wait or run", Tags: tags,
	}, func(ctx context.Context, in *queueListInput) (*body[[]v1.InvocationStatus], error) {
		ref, err := a.existing(ctx, &in.QueueInput)
		if err != nil {
			return nil, err
		}
		out, err := a.deps.Queue.List(ctx, ref, in.State, cmp.Or(in.Limit, defaultListed))
		return &body[[]v1.InvocationStatus]{append([]v1.InvocationStatus{}, out...)}, err
	})
	handle(a, h, huma.Operation{
		OperationID: "list-dead", Method: http.MethodGet, Path: functionPath + "/queue/dead", Summary: "List dead letters, latest first", Tags: tags,
	}, a.listDead)
	handle(a, h, huma.Operation{
		OperationID: "get-dead", Method: http.MethodGet, Path: "/v1/dead/{invocation}", Summary: "Show a dead letter", Tags: tags,
	}, func(ctx context.Context, in *invocationInput) (*body[v1.DeadLetter], error) {
		if err := in.check(); err != nil {
			return nil, err
		}
		d, err := a.deps.Queue.ShowDead(ctx, in.Invocation)
		return &body[v1.DeadLetter]{deadLetter(&d)}, err
	})
	handle(a, h, huma.Operation{
		OperationID: "get-invocation", Method: http.MethodGet, Path: "/v1/invocations/{invocation}", Summary: "Show where a queued invocation stands", Tags: tags,
	}, func(ctx context.Context, in *invocationInput) (*body[v1.InvocationStatus], error) {
		if err := in.check(); err != nil {
			return nil, err
		}
		out, err := a.deps.Queue.Lookup(ctx, in.Invocation)
		return &body[v1.InvocationStatus]{out}, err
	})
	handle(a, h, huma.Operation{
		OperationID: "cancel-invocation", Method: http.MethodDelete, Path: "/v1/invocations/{invocation}", Summary: "Cancel a queued invocation", Tags: tags,
	}, func(ctx context.Context, in *invocationInput) (*body[v1.InvocationStatus], error) {
		if err := in.check(); err != nil {
			return nil, err
		}
		out, err := a.deps.Queue.Cancel(ctx, in.Invocation)
		return &body[v1.InvocationStatus]{out}, err
	})
	handle(a, h, huma.Operation{
		OperationID: "redrive-dead", Method: http.MethodPost, Path: "/v1/dead/{invocation}/redrive", Summary: "Hand the invocation of a dead letter over again", Tags: tags,
	}, func(ctx context.Context, in *againInput) (*body[v1.Redriven], error) {
		if err := in.check(); err != nil {
			return nil, err
		}
		id, err := a.deps.Queue.Redrive(ctx, in.Invocation, in.Revision)
		return &body[v1.Redriven]{v1.Redriven{Invocation: id, RedriveOf: in.Invocation}}, err
	})
	handle(a, h, huma.Operation{
		OperationID: "replay-invocation", Method: http.MethodPost, Path: "/v1/invocations/{invocation}/replay", Tags: tags,
		Summary: "Run a stored invocation once more and compare what it answers",
	}, func(ctx context.Context, in *againInput) (*body[v1.Replayed], error) {
		if err := in.check(); err != nil {
			return nil, err
		}
		out, err := a.deps.Queue.Replay(ctx, in.Invocation, in.Revision)
		return &body[v1.Replayed]{out}, err
	})
	handle(a, h, huma.Operation{
		OperationID: "list-ended", Method: http.MethodGet, Path: functionPath + "/queue/ended", Summary: "List invocations that have ended, the oldest first", Tags: tags,
	}, a.listEnded)
	handle(a, h, huma.Operation{
		OperationID: "purge-dead", Method: http.MethodDelete, Path: functionPath + "/queue/dead", Summary: "Remove dead letters, the latest first", Tags: tags,
	}, a.purgeDead)
}

// QueueInput names a queue.
type QueueInput struct {
	NamespaceInput
	Name string `path:"name" doc:"Name of the function, or NAME@success or NAME@failure for what goes to its destination" example:"hello"`
}

func (in *QueueInput) ref() (functions.Ref, error) {
	ref := functions.Ref{Namespace: in.Namespace, Name: in.Name}
	return ref, ref.ValidateQueue()
}

// existing returns the name of the queue of a function that there is.
func (a *API) existing(ctx context.Context, in *QueueInput) (functions.Ref, error) {
	ref, err := in.ref()
	if err == nil {
		of, _, _ := ref.Delivers()
		_, _, err = a.function(ctx, of)
	}
	return ref, err
}

type queuesInput struct {
	Namespace string `query:"namespace" doc:"Queues of this namespace only"`
}

func (a *API) listQueues(_ context.Context, in *queuesInput) (*body[[]v1.FunctionQueue], error) {
	if err := checkFilter("namespace", in.Namespace); err != nil {
		return nil, err
	}
	out := []v1.FunctionQueue{}
	for ref, d := range a.deps.Queue.Depths() {
		if in.Namespace == "" || in.Namespace == ref.Namespace {
			out = append(out, v1.FunctionQueue{Namespace: ref.Namespace, Function: ref.Name, QueueDepth: d})
		}
	}
	slices.SortFunc(out, func(x, y v1.FunctionQueue) int {
		return cmp.Or(cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(x.Function, y.Function))
	})
	return &body[[]v1.FunctionQueue]{out}, nil
}

// listDead does not ask whether the function exists: its dead letters outlive it.
func (a *API) listDead(ctx context.Context, in *deadListInput) (*body[[]v1.DeadLetter], error) {
	ref, err := in.ref()
	if err != nil {
		return nil, err
	}
	letters, err := a.deps.Queue.Dead(ctx, ref, cmp.Or(in.Limit, defaultListed))
	if err != nil {
		return nil, err
	}
	out := make([]v1.DeadLetter, 0, len(letters))
	for _, d := range letters {
		out = append(out, deadLetter(&d))
	}
	return &body[[]v1.DeadLetter]{out}, nil
}

// purgeDead does not ask whether the function exists, either.
func (a *API) purgeDead(ctx context.Context, in *deadListInput) (*body[v1.Purged], error) {
	ref, err := in.ref()
	if err != nil {
		return nil, err
	}
	n, err := a.deps.Queue.PurgeDead(ctx, ref, cmp.Or(in.Limit, defaultListed))
	return &body[v1.Purged]{v1.Purged{Removed: n}}, err
}

// deadLetter shows a stored dead letter.
func deadLetter(d *functions.DeadLetter) v1.DeadLetter {
	i := &d.Invocation
	return v1.DeadLetter{Reason: d.Reason, Died: d.Died, Invocation: v1.QueuedInvocation{
		ID: i.ID, Namespace: i.Namespace, Function: i.Function, Trigger: i.Trigger, Method: i.Method, Path: i.Path, Query: i.Query,
		Headers: i.Header, Body: i.Body, BodyRef: i.BodyRef, Accepted: i.Accepted, Deadline: i.Deadline, Attempt: i.Attempt,
		History: i.History, RedriveOf: i.RedriveOf, Of: i.Of,
	}}
}
