package api

import (
	"cmp"
	"context"
	"net/http"
	"reflect"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// Triggers is what the API asks of the triggers at work.
type Triggers interface {
	// Check reports what is wrong with a trigger beyond what its own Validate sees.
	Check(t *functions.Trigger) error
	// WaitApplied returns when the triggers work by the given revision of their table.
	WaitApplied(ctx context.Context, revision uint64) error
	// WaitGone returns when the trigger is at work no more.
	WaitGone(ctx context.Context, id functions.Ref) error
	// Status tells how a trigger does; false where it is not at work.
	Status(id functions.Ref) (v1.TriggerStatus, bool)
	// Try hands an event over to one trigger, whatever its filters say.
	Try(ctx context.Context, id functions.Ref, req v1.EmitRequest) (v1.Emitted, error)
}

// TriggerInput names a trigger in a path.
type TriggerInput struct {
	Namespace string `path:"namespace" doc:"The trigger's namespace" example:"default"`
	Trigger   string `path:"trigger" doc:"Name of the trigger" example:"orders"`
}

func (in *TriggerInput) id() (functions.Ref, error) {
	if err := functions.ValidateName("namespace", in.Namespace); err != nil {
		return functions.Ref{}, err
	}
	return functions.Ref{Namespace: in.Namespace, Name: in.Trigger}, functions.ValidateName("trigger", in.Trigger)
}

type triggersInput struct {
	Namespace string `query:"namespace" doc:"Triggers of this namespace only"`
	Function  string `query:"function" doc:"Triggers of the functions of this name only"`
}

type triggerBody struct {
	TriggerInput
	Body functions.Trigger
}

type tryInput struct {
	TriggerInput
	Body v1.EmitRequest
}

type declareInput struct {
	RefInput
	Body []functions.Trigger
}

const triggerPath = "/v1/namespaces/{namespace}/triggers/{trigger}"

func (a *API) registerTriggers(h huma.API) {
	tags := []string{"triggers"}
	handle(a, h, huma.Operation{
		OperationID: "list-triggers", Method: http.MethodGet, Path: "/v1/triggers", Summary: "List the triggers", Tags: tags,
	}, a.listTriggers)
	handle(a, h, huma.Operation{
		OperationID: "get-trigger", Method: http.MethodGet, Path: triggerPath, Summary: "Show a trigger", Tags: tags,
	}, func(ctx context.Context, in *TriggerInput) (*body[v1.TriggerView], error) {
		id, err := in.id()
		if err != nil {
			return nil, err
		}
		t, _, err := a.trigger(ctx, id)
		if err != nil {
			return nil, err
		}
		view := a.triggerView(&t)
		view.Firings, err = a.firings(ctx, id)
		return &body[v1.TriggerView]{view}, err
	})
	handle(a, h, huma.Operation{
		OperationID: "set-trigger", Method: http.MethodPut, Path: triggerPath, Summary: "Set a trigger", Tags: tags,
		Description: "Makes the trigger, or replaces it as a whole. Its function must exist, in the same namespace.",
	}, a.setTrigger)
	handle(a, h, huma.Operation{
		OperationID: "delete-trigger", Method: http.MethodDelete, Path: triggerPath, Summary: "Remove a trigger", Tags: tags, DefaultStatus: http.StatusNoContent,
		Description: "Invocations that it caused go on.",
	}, a.deleteTrigger)
	for _, p := range []struct {
		id, summary string
		paused      bool
	}{{"pause", "Pause a trigger: it takes nothing in", true}, {"resume", "Let a paused trigger go on", false}} {
		handle(a, h, huma.Operation{
			OperationID: p.id + "-trigger", Method: http.MethodPost, Path: triggerPath + "/" + p.id, Summary: p.summary, Tags: tags,
		}, func(ctx context.Context, in *TriggerInput) (*body[v1.TriggerView], error) {
			return a.pauseTrigger(ctx, in, p.paused)
		})
	}
	handle(a, h, huma.Operation{
		OperationID: "try-trigger", Method: http.MethodPost, Path: triggerPath + "/test", Summary: "Hand an event over to a trigger", Tags: tags,
		Description: "The event becomes an invocation whatever the filters say, also of a paused trigger. What the event leaves out is filled in. A cron trigger fires.",
	}, func(ctx context.Context, in *tryInput) (*body[v1.Emitted], error) {
		id, err := in.id()
		if err != nil {
			return nil, err
		}
		if _, _, err := a.trigger(ctx, id); err != nil {
			return nil, err
		}
		out, err := a.deps.Triggers.Try(ctx, id, in.Body)
		return &body[v1.Emitted]{out}, err
	})
	handle(a, h, huma.Operation{
		OperationID: "declare-triggers", Method: http.MethodPut, Path: functionPath + "/triggers", Summary: "Set the triggers that a function's file declares", Tags: tags,
		Description: "Makes or replaces those given, and removes those that were declared for the function before and are not given. Others stay as they are.",
	}, a.declareTriggers)
}

// trigger reads a trigger's record, and its revision in the bucket.
func (a *API) trigger(ctx context.Context, id functions.Ref) (functions.Trigger, uint64, error) {
	t, kv, err := a.deps.Bus.Triggers().Get(ctx, bus.TriggerKey(id))
	if fault.KindOf(err) == fault.NotFound {
		err = fault.New(fault.CodeNotFound, "there is no trigger %s", id).WithHint("tatami trigger ls")
	}
	return t, kv, err
}

// firings are the latest firings of a trigger.
func (a *API) firings(ctx context.Context, id functions.Ref) ([]functions.Firing, error) {
	state, _, err := a.deps.Bus.TriggerStates().Get(ctx, bus.TriggerKey(id))
	if fault.KindOf(err) == fault.NotFound {
		err = nil
	}
	return state.Firings, err
}

// triggerView is a trigger as it is shown: what is secret of it stays inside.
func (a *API) triggerView(t *functions.Trigger) v1.TriggerView {
	out := v1.TriggerView{Trigger: *t, Kind: t.Kind()}
	out.Status, _ = a.deps.Triggers.Status(t.ID())
	return out
}

func (a *API) listTriggers(ctx context.Context, in *triggersInput) (*body[[]v1.TriggerView], error) {
	if err := cmp.Or(checkFilter("namespace", in.Namespace), checkFilter("function", in.Function)); err != nil {
		return nil, err
	}
	match := ""
	if in.Namespace != "" {
		match = bus.TriggersIn(in.Namespace)
	}
	entries, err := a.deps.Bus.Triggers().List(ctx, match)
	if err != nil {
		return nil, err
	}
	out := []v1.TriggerView{}
	for _, e := range entries {
		if in.Function == "" || in.Function == e.Value.Function {
			out = append(out, a.triggerView(&e.Value))
		}
	}
	slices.SortFunc(out, func(x, y v1.TriggerView) int {
		return cmp.Or(cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(x.Name, y.Name))
	})
	return &body[[]v1.TriggerView]{out}, nil
}

func (a *API) setTrigger(ctx context.Context, in *triggerBody) (*body[v1.TriggerView], error) {
	id, err := in.id()
	if err != nil {
		return nil, err
	}
	t := in.Body
	if t.Name != "" && t.Name != id.Name || t.Namespace != "" && t.Namespace != id.Namespace {
		return nil, fault.New(fault.CodeInvalidRequest, "the trigger is %q, the path says %q", t.ID(), id).WithField("name")
	}
	t.Name, t.Namespace, t.Declared = id.Name, id.Namespace, false
	a.records.Lock()
	defer a.records.Unlock()
	if old, _, err := a.trigger(ctx, id); err == nil && old.Declared {
		return nil, declaredFault(&old)
	}
	kv, err := a.putTrigger(ctx, &t)
	if err != nil {
		return nil, err
	}
	return a.appliedTrigger(ctx, id, kv)
}

func declaredFault(t *functions.Trigger) error {
	return fault.New(fault.CodeConflict, "the trigger %s is declared in the tatami.yaml of %s", t.ID(), t.Ref()).
		WithHint("change it there and deploy, or choose another name")
}

// putTrigger checks a trigger and writes it. The caller holds records.
func (a *API) putTrigger(ctx context.Context, t *functions.Trigger) (uint64, error) {
	*t = t.WithDefaults()
	if err := a.check(t); err != nil {
		return 0, err
	}
	if _, _, err := a.function(ctx, t.Ref()); err != nil {
		return 0, err
	}
	now := time.Now().UTC()
	t.Created, t.Updated = now, now
	old, kv, err := a.trigger(ctx, t.ID())
	switch {
	case err == nil:
		same := *t
		same.Created, same.Updated = old.Created, old.Updated
		if t.Created = old.Created; reflect.DeepEqual(same, old) {
			// Its source goes on undisturbed.
			*t = old
			return kv, nil
		}
		return a.deps.Bus.Triggers().Update(ctx, bus.TriggerKey(t.ID()), *t, kv)
	case fault.KindOf(err) != fault.NotFound:
		return 0, err
	}
	keys, err := a.deps.Bus.Triggers().Keys(ctx, bus.TriggersIn(t.Namespace))
	if err != nil {
		return 0, err
	}
	if len(keys) >= functions.MaxTriggers {
		return 0, fault.New(fault.CodeQuotaExceeded, "the namespace %s has %d triggers, which is as many as may be", t.Namespace, len(keys)).
			WithHint("tatami trigger rm TRIGGER")
	}
	return a.deps.Bus.Triggers().Create(ctx, bus.TriggerKey(t.ID()), *t)
}

// check reports what is wrong with a trigger whose defaults are filled in.
func (a *API) check(t *functions.Trigger) error {
	if err := t.Validate(); err != nil {
		return err
	}
	return a.deps.Triggers.Check(t)
}

// appliedTrigger shows a trigger once its change is on disk and at work.
func (a *API) appliedTrigger(ctx context.Context, id functions.Ref, kv uint64) (*body[v1.TriggerView], error) {
	if err := a.applied(ctx, kv); err != nil {
		return nil, err
	}
	t, _, err := a.trigger(ctx, id)
	a.log.Info("trigger set", "trigger", id.String(), "fn", t.Ref().String(), "kind", t.Kind(), "paused", t.Paused)
	return &body[v1.TriggerView]{a.triggerView(&t)}, err
}

func (a *API) applied(ctx context.Context, kv uint64) error {
	if err := a.deps.Bus.Triggers().Sync(ctx); err != nil {
		return err
	}
	return a.deps.Triggers.WaitApplied(ctx, kv)
}

func (a *API) deleteTrigger(ctx context.Context, in *TriggerInput) (*none, error) {
	id, err := in.id()
	if err != nil {
		return nil, err
	}
	a.records.Lock()
	defer a.records.Unlock()
	if _, _, err := a.trigger(ctx, id); err != nil {
		return nil, err
	}
	if err := a.dropTriggers(ctx, id); err != nil {
		return nil, err
	}
	a.log.Info("trigger removed", "trigger", id.String())
	return &none{}, nil
}

func (a *API) pauseTrigger(ctx context.Context, in *TriggerInput, paused bool) (*body[v1.TriggerView], error) {
	id, err := in.id()
	if err != nil {
		return nil, err
	}
	a.records.Lock()
	defer a.records.Unlock()
	t, kv, err := a.trigger(ctx, id)
	if err != nil {
		return nil, err
	}
	if t.Paused != paused {
		t.Paused, t.Updated = paused, time.Now().UTC()
		if kv, err = a.deps.Bus.Triggers().Update(ctx, bus.TriggerKey(id), t, kv); err != nil {
			return nil, err
		}
	}
	return a.appliedTrigger(ctx, id, kv)
}

// declareTriggers checks all before it changes one.
func (a *API) declareTriggers(ctx context.Context, in *declareInput) (*body[[]v1.TriggerView], error) {
	ref, err := in.ref()
	if err != nil {
		return nil, err
	}
	a.records.Lock()
	defer a.records.Unlock()
	old, err := a.triggersOf(ctx, ref, func(t *functions.Trigger) bool { return t.Declared })
	if err != nil {
		return nil, err
	}
	given := map[string]bool{}
	for i := range in.Body {
		t := &in.Body[i]
		t.Namespace, t.Function, t.Declared = ref.Namespace, ref.Name, true
		*t = t.WithDefaults()
		if err := a.check(t); err != nil {
			return nil, err
		}
		if given[t.Name] {
			return nil, fault.New(fault.CodeInvalidSpec, "two triggers are called %s", t.Name).WithField("name")
		}
		given[t.Name] = true
		was, _, err := a.trigger(ctx, t.ID())
		switch {
		case err == nil && (!was.Declared || was.Function != ref.Name):
			return nil, fault.New(fault.CodeConflict, "there is another trigger %s, of %s", t.ID(), was.Ref()).WithField("name").
				WithHint("choose another name, or remove that one: tatami trigger rm %s", t.ID())
		case err == nil:
			// Somebody paused it, and has not changed their mind.
			t.Paused = t.Paused || was.Paused
		case fault.KindOf(err) != fault.NotFound:
			return nil, err
		}
	}
	return a.replaceDeclared(ctx, in.Body, old, given)
}

func (a *API) replaceDeclared(ctx context.Context, triggers []functions.Trigger, old []functions.Trigger, given map[string]bool) (*body[[]v1.TriggerView], error) {
	var kv uint64
	for i := range triggers {
		rev, err := a.putTrigger(ctx, &triggers[i])
		if err != nil {
			return nil, err
		}
		kv = max(kv, rev)
	}
	var gone []functions.Ref
	for i := range old {
		if !given[old[i].Name] {
			gone = append(gone, old[i].ID())
		}
	}
	if err := a.dropTriggers(ctx, gone...); err != nil {
		return nil, err
	}
	if err := a.applied(ctx, kv); err != nil {
		return nil, err
	}
	out := []v1.TriggerView{}
	for i := range triggers {
		out = append(out, a.triggerView(&triggers[i]))
	}
	return &body[[]v1.TriggerView]{out}, nil
}

// triggersOf lists those triggers of a function that which chooses.
func (a *API) triggersOf(ctx context.Context, ref functions.Ref, which func(*functions.Trigger) bool) ([]functions.Trigger, error) {
	entries, err := a.deps.Bus.Triggers().List(ctx, bus.TriggersIn(ref.Namespace))
	if err != nil {
		return nil, err
	}
	var out []functions.Trigger
	for i := range entries {
		if t := &entries[i].Value; t.Function == ref.Name && which(t) {
			out = append(out, *t)
		}
	}
	return out, nil
}

// dropTriggers removes triggers, by their own names, and returns when they are at work no more and that is on disk. The caller holds records.
func (a *API) dropTriggers(ctx context.Context, ids ...functions.Ref) error {
	for _, id := range ids {
		if err := a.deps.Bus.Triggers().Delete(ctx, bus.TriggerKey(id)); err != nil {
			return err
		}
		if err := a.deps.Bus.TriggerStates().Delete(ctx, bus.TriggerKey(id)); err != nil {
			return err
		}
	}
	for _, id := range ids {
		if err := a.deps.Triggers.WaitGone(ctx, id); err != nil {
			return err
		}
	}
	return a.deps.Bus.Triggers().Sync(ctx)
}
