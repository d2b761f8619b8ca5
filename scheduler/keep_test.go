package scheduler

import (
	"strings"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
)

// TestStartsAheadOfWhatIsRegular needs a function every five minutes: the first times it has to be waited for, later an instance is there shortly
func TestStartsAheadOfWhatIsRegular(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.do(w.core.Synced(w.now))
	w.addNode("n1", 1024)
	w.pass(time.Second)
	rev := functions.Revision{
		Schema: 1, ID: "r1", Namespace: functions.DefaultNamespace, Function: "f0", State: functions.RevisionReady,
		Config: functions.Config{Scale: functions.Scale{KeepAlive: functions.Duration(10 * time.Second), KeepAliveMax: functions.Duration(20 * time.Second)}}.WithDefaults(),
	}
	fn := functions.Function{Schema: 1, Namespace: functions.DefaultNamespace, Name: "f0", Live: "r1", Revisions: []functions.RevisionID{"r1"}}
	w.revs["r1"], w.fns[fnRef(0)] = rev, fn
	w.do(w.core.SetRevision(w.now, rev))
	w.do(w.core.SetFunction(w.now, fn))

	ref := fnRef(0)
	f := w.core.State().Functions[ref]
	there := func() int { return len(f.Instances) }
	need := func(waiting int, mean float64) {
		w.demandSeq++
		d := bus.FunctionDemand{Namespace: functions.DefaultNamespace, Function: "f0", Waiting: waiting, Concurrency: mean}
		w.do(w.core.Demand(w.now, bus.Demand{Envelope: bus.Envelope{Schema: 1, Boot: "g", Sequence: w.demandSeq}, Gateway: "g1", Functions: []bus.FunctionDemand{d}}))
	}
	becomeReady := func() {
		for _, n := range w.nodes {
			for _, in := range n.insts {
				if in.State == functions.InstanceStarting {
					in.State, in.Since = functions.InstanceReady, w.now
					w.delta(n, *in)
				}
			}
		}
	}
	const rounds = 8
	waited := 0
	for round := range rounds {
		if there() == 0 {
			waited++
		} else if round < 2 {
			t.Errorf("in round %d an instance is there, though nothing is known", round)
		}
		need(1, 1)
		becomeReady()
		w.pass(500 * time.Millisecond)
		need(0, 0.5)
		for range 299 {
			w.pass(time.Second)
			becomeReady()
		}
		w.pass(500 * time.Millisecond)
	}
	if waited == 0 || waited > 4 {
		t.Errorf("%d of %d needs found no instance", waited, rounds)
	}
	if f.Plan == nil || !f.Plan.Periodic {
		t.Fatalf("the plan is %v", f.Plan)
	}
	e := explain(w.now, w.core.State(), bus.ExplainRequest{Function: &ref})
	said := false
	for _, l := range e.Lines {
		said = said || strings.HasPrefix(l.Text, "keep-alive: kept 10s after the last need and started again")
	}
	if !said {
		t.Errorf("explain does not tell of the plan: %+v", e.Lines[:min(len(e.Lines), 3)])
	}
	if !strings.Contains(w.out.String(), "ahead of its need") {
		t.Error("no instance was started ahead")
	}

	// A restart between two needs forgets nothing of that.
	stored := w.core.Unsaved(w.now)
	w.restart()
	for _, l := range stored {
		w.core.Recall(*l.Times)
	}
	w.core.Recall(functions.IdleTimes{Namespace: functions.DefaultNamespace, Function: "gone"})
	w.do(w.core.SetRevision(w.now, w.revs["r1"]))
	w.do(w.core.SetFunction(w.now, w.fns[ref]))
	w.do(w.core.Synced(w.now))
	if l, left := w.core.Learnt(w.now, 10); len(l) != 1 || left != 0 || l[0].Ref.Name != "gone" || l[0].Times != nil {
		t.Errorf("of a function that is no more %+v is to be stored", l)
	}
	for _, n := range w.nodes {
		w.full(n)
	}
	f = w.core.State().Functions[ref]
	w.pass(10 * time.Second)
	need(1, 1)
	becomeReady()
	w.pass(500 * time.Millisecond)
	need(0, 0.5)
	for range 298 {
		w.pass(time.Second)
		becomeReady()
	}
	if f.Plan == nil || !f.Plan.Periodic || there() == 0 {
		t.Errorf("after a restart the plan is %v, and %d instances are there before the need", f.Plan, there())
	}
}
