package invoke

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// A gateway whose table is behind looks into the store before it says that nothing serves a function: another one, which a caller came from, may
// know already that something does.
func TestATableThatIsBehind(t *testing.T) {
	t.Parallel()
	b, err := bus.Open(t.Context(), bus.Config{DataDir: t.TempDir()}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close(context.Background()) }()
	ref := functions.Ref{Namespace: functions.DefaultNamespace, Name: "hello"}
	rev := functions.Revision{
		Schema: functions.Schema, ID: "rev_aaaaaaaaaaaaaaaaaaaaaaaaaa", Namespace: ref.Namespace, Function: ref.Name, State: functions.RevisionReady,
		Config: functions.Config{}.WithDefaults(),
	}
	if _, err := b.Revisions().Put(t.Context(), bus.RevisionKey(ref, rev.ID), rev); err != nil {
		t.Fatal(err)
	}
	fn := functions.Function{Schema: functions.Schema, Namespace: ref.Namespace, Name: ref.Name, Candidate: rev.ID}
	at, err := b.Functions().Create(t.Context(), bus.FunctionKey(ref), fn)
	if err != nil {
		t.Fatal(err)
	}
	// What the watch has brought so far.
	r := newRoutes(b, newRegistry(), func(*function) {}, slog.New(slog.DiscardHandler))
	r.apply(t.Context(), ref, fn, at, false)
	if _, rt, err := r.find(t.Context(), ref); err != nil || rt.live != nil {
		t.Fatalf("before anything serves: %+v, %v", rt, err)
	}

	fn.Candidate, fn.Live = "", rev.ID
	if at, err = b.Functions().Update(t.Context(), bus.FunctionKey(ref), fn, at); err != nil {
		t.Fatal(err)
	}
	if _, rt, err := r.find(t.Context(), ref); err != nil || rt.live == nil || rt.live.ID != rev.ID {
		t.Errorf("once a revision serves: %+v, %v", rt, err)
	}

	r.apply(t.Context(), ref, functions.Function{Schema: functions.Schema, Namespace: ref.Namespace, Name: ref.Name}, at+1, false)
	if err := b.Functions().Delete(t.Context(), bus.FunctionKey(ref)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.find(t.Context(), ref); !fault.Is(err, fault.CodeFunctionNotFound) {
		t.Errorf("once it is deleted: %v", err)
	}
}

// Of a revision the gateway holds what calls take, and not what only starting an instance does.
func TestAGatewayHoldsWhatCallsTake(t *testing.T) {
	t.Parallel()
	r := newRoutes(nil, newRegistry(), func(*function) {}, slog.New(slog.DiscardHandler))
	rev := functions.Revision{
		ID: "rev_a", Namespace: "default", Function: "f", State: functions.RevisionReady, Artifact: functions.Artifact{Digest: "sha256:0"}, Logs: []string{"x"},
		Config: functions.Config{
			Command: []string{"/f"}, Env: map[string]string{"A": "b"}, Labels: map[string]string{"team": "a"}, Timeout: functions.Duration(time.Second),
			Protocol: functions.ProtocolH2C, Queue: functions.Queue{MaxPending: 3},
		},
	}
	r.revision(t.Context(), bus.Event[functions.Revision]{Entry: bus.Entry[functions.Revision]{Key: "default.f.rev_a", Value: rev}})
	ref := functions.Ref{Namespace: "default", Name: "f"}
	r.apply(t.Context(), ref, functions.Function{Live: "rev_a"}, 1, false)
	_, rt := r.known(ref)
	if rt == nil || rt.live == nil {
		t.Fatalf("the route is %+v", rt)
	}
	if c := rt.live.Config; rt.live.Artifact.Digest != "" || rt.live.Logs != nil || c.Command != nil || c.Env != nil || c.Labels != nil {
		t.Errorf("held: %+v", rt.live)
	}
	if c := rt.live.Config; rt.serving != "rev_a" || rt.live.State != functions.RevisionReady || c.Timeout.Std() != time.Second || !c.H2C() || c.Queue.MaxPending != 3 {
		t.Errorf("held: %+v", rt.live)
	}
	if rev.Config.Env["A"] != "b" {
		t.Errorf("the record is %+v", rev)
	}
}
