package api_test

import (
	"testing"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/tests/cli/standin"
)

func orders() functions.Trigger {
	return functions.Trigger{Namespace: "default", Name: "orders", Function: "hello", Event: &functions.EventSource{}}
}

func TestTriggers(t *testing.T) {
	t.Parallel()
	s := standin.Start(t, standin.Config{})
	c := s.Client(t)
	_, err := c.SetTrigger(t.Context(), orders())
	fails(t, err, fault.CodeFunctionNotFound, "hello", "tatami fn ls")
	mustDeploy(t, c, hello, v1.DeployRequest{Digest: upload(t, c, image(t, "one"))})

	set, err := c.SetTrigger(t.Context(), orders())
	if err != nil || set.Kind != "event" || set.Path != "/" || set.Status.State != "active" || set.Created.IsZero() {
		t.Fatalf("%+v, %v", set, err)
	}
	changed := orders()
	changed.Path, changed.Reply = "/in", true
	again, err := c.SetTrigger(t.Context(), changed)
	if err != nil || again.Path != "/in" || !again.Reply || !again.Created.Equal(set.Created) || !again.Updated.After(set.Updated) {
		t.Errorf("%+v, %v", again, err)
	}
	em, err := c.TryTrigger(t.Context(), set.ID(), v1.EmitRequest{})
	if err != nil || em.ID != standin.InvocationID || em.Trigger != "orders" || em.Event == "" {
		t.Errorf("%+v, %v", em, err)
	}
	_, err = c.TryTrigger(t.Context(), set.ID(), v1.EmitRequest{Source: "a b"})
	fails(t, err, fault.CodeInvalidRequest, "source")
	if paused, err := c.PauseTrigger(t.Context(), set.ID(), true); err != nil || !paused.Paused || paused.Status.State != "paused" {
		t.Errorf("%+v, %v", paused, err)
	}
	if on, err := c.PauseTrigger(t.Context(), set.ID(), false); err != nil || on.Paused || on.Status.State != "active" || on.Status.Accepted != 1 {
		t.Errorf("%+v, %v", on, err)
	}
	for ns, want := range map[string]int{"": 1, "default": 1, "other": 0} {
		if all, err := c.Triggers(t.Context(), ns, ""); err != nil || len(all) != want {
			t.Errorf("in %q: %+v, %v", ns, all, err)
		}
	}
	if all, err := c.Triggers(t.Context(), "default", "nobody"); err != nil || len(all) != 0 {
		t.Errorf("%+v, %v", all, err)
	}
	bad := orders()
	bad.Filters = []functions.Filter{{}}
	_, err = c.SetTrigger(t.Context(), bad)
	fails(t, err, fault.CodeInvalidSpec, "filters[0]")
	if f := fault.From(err); f == nil || f.Field != "filters[0]" {
		t.Errorf("%+v", f)
	}
	if err := c.DeleteTrigger(t.Context(), set.ID()); err != nil {
		t.Fatal(err)
	}
	_, err = c.Trigger(t.Context(), set.ID())
	fails(t, err, fault.CodeNotFound, "there is no trigger orders", "tatami trigger ls")
	fails(t, c.DeleteTrigger(t.Context(), set.ID()), fault.CodeNotFound, "orders")
}

// What a function's file declares is what there is, beside what was set by hand.
func TestDeclaredTriggers(t *testing.T) {
	t.Parallel()
	s := standin.Start(t, standin.Config{})
	c := s.Client(t)
	mustDeploy(t, c, hello, v1.DeployRequest{Digest: upload(t, c, image(t, "one"))})
	byHand := orders()
	byHand.Name = "by-hand"
	if _, err := c.SetTrigger(t.Context(), byHand); err != nil {
		t.Fatal(err)
	}
	declare := func(names ...string) error {
		var ts []functions.Trigger
		for _, n := range names {
			ts = append(ts, functions.Trigger{Name: n, Event: &functions.EventSource{}})
		}
		_, err := c.DeclareTriggers(t.Context(), hello, ts)
		return err
	}
	there := func(want ...string) {
		t.Helper()
		all, err := c.Triggers(t.Context(), "", "")
		if err != nil || len(all) != len(want) {
			t.Fatalf("%+v, %v; want %v", all, err, want)
		}
		for i := range all {
			if all[i].Name != want[i] {
				t.Errorf("%s, want %s", all[i].Name, want[i])
			}
		}
	}
	if err := declare("a", "b"); err != nil {
		t.Fatal(err)
	}
	there("a", "b", "by-hand")
	if _, err := c.PauseTrigger(t.Context(), functions.Ref{Namespace: "default", Name: "b"}, true); err != nil {
		t.Fatal(err)
	}
	if err := declare("b", "c"); err != nil {
		t.Fatal(err)
	}
	there("b", "by-hand", "c")
	if b, err := c.Trigger(t.Context(), functions.Ref{Namespace: "default", Name: "b"}); err != nil || !b.Paused || !b.Declared {
		t.Errorf("%+v, %v", b, err)
	}
	fails(t, declare("c", "by-hand"), fault.CodeConflict, "by-hand")
	fails(t, declare("c", "c"), fault.CodeInvalidSpec, "two triggers")
	fails(t, declare("c", "C"), fault.CodeInvalidRequest, "C")
	there("b", "by-hand", "c")
	taken := orders()
	taken.Name = "c"
	_, err := c.SetTrigger(t.Context(), taken)
	fails(t, err, fault.CodeConflict, "tatami.yaml of hello")

	// They go with the function.
	if err := c.Delete(t.Context(), hello); err != nil {
		t.Fatal(err)
	}
	there()
}
