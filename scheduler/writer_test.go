package scheduler

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/scheduler/reconcile"
)

// Effects may come twice, or late: what is stored decides.
func TestChangesAreCheckedAgainstWhatIsStored(t *testing.T) {
	t.Parallel()
	const pending, ready, failed = functions.RevisionPending, functions.RevisionReady, functions.RevisionFailed
	for name, tc := range map[string]struct {
		kind            reconcile.Kind
		before          functions.Function
		state           functions.RevisionState
		settled         bool
		live, candidate functions.RevisionID
		after           functions.RevisionState
		reason          string
	}{
		"promote":                         {kind: reconcile.Promote, before: functions.Function{Live: "a", Candidate: "r"}, state: pending, live: "r", after: ready},
		"promote after a crash":           {kind: reconcile.Promote, before: functions.Function{Live: "a", Candidate: "r"}, state: ready, live: "r", after: ready},
		"promote what was replaced":       {kind: reconcile.Promote, before: functions.Function{Live: "a", Candidate: "s"}, state: pending, settled: true, live: "a", candidate: "s", after: pending},
		"fail":                            {kind: reconcile.Fail, before: functions.Function{Live: "a", Candidate: "r"}, state: pending, live: "a", after: failed, reason: "why"},
		"fail what was ready once":        {kind: reconcile.Fail, before: functions.Function{Live: "a", Candidate: "r"}, state: ready, live: "a", after: ready, reason: "why"},
		"fail what was replaced":          {kind: reconcile.Fail, before: functions.Function{Live: "a"}, state: pending, settled: true, live: "a", after: pending},
		"withdraw":                        {kind: reconcile.Withdraw, before: functions.Function{Live: "a", Candidate: "r"}, state: failed, live: "a", after: failed},
		"withdraw what is tried again":    {kind: reconcile.Withdraw, before: functions.Function{Live: "a", Candidate: "r"}, state: pending, settled: true, live: "a", candidate: "r", after: pending},
		"mark ready":                      {kind: reconcile.MarkReady, before: functions.Function{Live: "r", Candidate: "s"}, state: pending, live: "r", candidate: "s", after: ready},
		"mark ready what is not the live": {kind: reconcile.MarkReady, before: functions.Function{Live: "a"}, state: pending, settled: true, live: "a", after: pending},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, err := bus.Open(t.Context(), bus.Config{DataDir: t.TempDir()}, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = b.Close(context.Background()) })
			s, err := New(Config{}, b, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			ref := functions.Ref{Namespace: "default", Name: "hello"}
			fn, rev := tc.before, functions.Revision{Schema: 1, ID: "r", Namespace: ref.Namespace, Function: ref.Name, State: tc.state}
			fn.Schema, fn.Namespace, fn.Name = 1, ref.Namespace, ref.Name
			if _, err := b.Functions().Create(t.Context(), bus.FunctionKey(ref), fn); err != nil {
				t.Fatal(err)
			}
			if _, err := b.Revisions().Create(t.Context(), bus.RevisionKey(ref, "r"), rev); err != nil {
				t.Fatal(err)
			}
			e := reconcile.Effect{Kind: tc.kind, Ref: ref, Revision: "r", Reason: "why", Logs: []string{"words"}}
			if err := s.change(t.Context(), e); errors.Is(err, errSettled) != tc.settled || err != nil && !tc.settled {
				t.Errorf("change: %v", err)
			}
			fn, _, err = b.Functions().Get(t.Context(), bus.FunctionKey(ref))
			if err != nil || fn.Live != tc.live || fn.Candidate != tc.candidate {
				t.Errorf("live %q, candidate %q, %v", fn.Live, fn.Candidate, err)
			}
			if tc.live == "r" && tc.kind == reconcile.Promote && fn.Previous != "a" {
				t.Errorf("previous %q", fn.Previous)
			}
			rev, _, err = b.Revisions().Get(t.Context(), bus.RevisionKey(ref, "r"))
			if err != nil || rev.State != tc.after || rev.Reason != tc.reason || tc.reason != "" && !slices.Equal(rev.Logs, e.Logs) {
				t.Errorf("revision %s: %q %q, %v", rev.State, rev.Reason, rev.Logs, err)
			}
		})
	}
}
