package reconcile

import (
	"fmt"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/scheduler/state"
)

// restingWorld is a world of two nodes and one function, whose instance was started for somebody who has his answer by now.
type restingWorld struct {
	*testing.T
	*Reconciler
	now     time.Time
	ref     functions.Ref
	reports map[functions.NodeID]uint64
	demands uint64
}

const restingKeep = 10 * time.Second

func newRestingWorld(t *testing.T) *restingWorld {
	ids := 0
	w := &restingWorld{
		T: t, Reconciler: New(Config{}, func() functions.InstanceID { ids++; return functions.InstanceID(fmt.Sprint("ins_", ids)) }),
		now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), ref: functions.Ref{Namespace: "default", Name: "hello"}, reports: map[functions.NodeID]uint64{},
	}
	w.record(func(*functions.Function) {})
	w.revision("r1", functions.RevisionReady)
	w.Synced(w.now)
	for _, n := range []functions.NodeID{"nod_a", "nod_b"} {
		w.report(n, true)
	}
	w.now = w.now.Add(time.Second)
	w.Tick(w.now)
	w.demand(bus.FunctionDemand{Waiting: 1})
	w.report(w.only().Node, false, w.said(functions.InstanceReady))
	w.demand(bus.FunctionDemand{Concurrency: 1})
	return w
}

func (w *restingWorld) record(change func(*functions.Function)) {
	rec := functions.Function{Namespace: w.ref.Namespace, Name: w.ref.Name, Live: "r1"}
	change(&rec)
	w.SetFunction(w.now, rec)
}

func (w *restingWorld) revision(id functions.RevisionID, s functions.RevisionState) {
	w.SetRevision(w.now, functions.Revision{
		ID: id, Namespace: w.ref.Namespace, Function: w.ref.Name, State: s,
		Config: functions.Config{Concurrency: 1, Scale: functions.Scale{KeepAlive: functions.Duration(restingKeep)}},
	})
}

func (w *restingWorld) report(n functions.NodeID, full bool, instances ...bus.InstanceReport) {
	w.reports[n]++
	w.Report(w.now, bus.Report{
		Envelope: bus.Envelope{Boot: "b", Node: n, Sequence: w.reports[n]}, Full: full, Instances: instances,
		State: bus.NodeState{Name: string(n), Allocatable: functions.Resources{CPU: 4000, Memory: 4 * functions.GiB, Instances: 100}},
	})
}

func (w *restingWorld) demand(d bus.FunctionDemand) {
	w.demands++
	d.Namespace, d.Function = w.ref.Namespace, w.ref.Name
	w.Demand(w.now, bus.Demand{Envelope: bus.Envelope{Boot: "b", Sequence: w.demands}, Gateway: "g", Partial: true, Functions: []bus.FunctionDemand{d}})
}

func (w *restingWorld) function() *state.Function { return w.State().Functions[w.ref] }

// only is the function's only instance.
func (w *restingWorld) only() *state.Instance {
	w.Helper()
	all := w.function().Ordered()
	if len(all) != 1 {
		w.Fatalf("%d instances", len(all))
	}
	return all[0]
}

// said is what a report says of the instance.
func (w *restingWorld) said(s functions.InstanceState) bus.InstanceReport {
	in := w.only().InstanceReport
	in.State = s
	return in
}

// A function that has the one instance that it should have is looked at when the time of that comes: not for every report of it, nor at times that
// mattered before.
func TestNothingIsDecidedBeforeItsTime(t *testing.T) {
	t.Parallel()
	w := newRestingWorld(t)
	end := w.now.Add(restingKeep)
	if next := w.Next(); !next.Equal(end) {
		t.Fatalf("it is looked at %s after its use, kept %s", next.Sub(w.now), restingKeep)
	}
	f := w.function()
	if !w.resting(f) {
		t.Fatal("there is something to decide for it")
	}
	f.Reason = "of old"
	w.now = w.now.Add(time.Second)
	w.report(w.only().Node, true, w.said(functions.InstanceReady))
	if f.Reason != "of old" {
		t.Error("a report that says nothing new was decided about")
	}
	if out := w.Due(end); len(out) != 1 || out[0].Command.Action != bus.ActionStop {
		t.Fatalf("at its end: %+v", out)
	}
	w.now = end
	f.Reason = "of old"
	w.report(w.only().Node, false, w.said(functions.InstanceStopped))
	if !w.resting(f) || f.Reason != "of old" || len(f.Instances) != 0 {
		t.Errorf("its end, which was decided, was decided about again: %q", f.Reason)
	}
	if next := w.Next(); !next.IsZero() {
		t.Errorf("it is looked at once more at %s", next)
	}
}

// Whatever is under way is looked at.
func TestWhatIsUnderWayIsLookedAt(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(w *restingWorld){
		"a new revision": func(w *restingWorld) { w.record(func(f *functions.Function) { f.Candidate = "r2" }) },
		"the traffic moved": func(w *restingWorld) {
			w.revision("r2", functions.RevisionReady)
			w.record(func(f *functions.Function) { f.Live = "r2" })
		},
		"the revision is not known as ready": func(w *restingWorld) { w.revision("r1", functions.RevisionPending) },
		"its record is gone":                 func(w *restingWorld) { w.DeleteFunction(w.now, w.ref) },
		"its node is drained": func(w *restingWorld) {
			w.SetNode(w.now, functions.NodeSettings{Node: w.only().Node, Intent: functions.NodeDrained})
		},
		"more are wanted": func(w *restingWorld) { w.demand(bus.FunctionDemand{Waiting: 3}) },
		"it was told to stop": func(w *restingWorld) {
			w.now = w.now.Add(restingKeep)
			w.Due(w.now)
		},
		"it drains": func(w *restingWorld) { w.report(w.only().Node, false, w.said(functions.InstanceDraining)) },
		"no time is noted": func(w *restingWorld) {
			w.due.set(w.ref, time.Time{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newRestingWorld(t)
			change(w)
			if f := w.function(); w.resting(f) {
				t.Errorf("nothing is to be decided for it: %+v", f)
			}
		})
	}
	w := newRestingWorld(t)
	if w.demand(bus.FunctionDemand{InFlight: 1}); w.resting(w.function()) {
		t.Error("its load, which time alone may make too much, is not looked at")
	}
}

// The time of a function is the last that was said, the earliest comes first, and none is left of one that has none any more.
func TestDueTimes(t *testing.T) {
	t.Parallel()
	d := due{at: map[functions.Ref]*dueEntry{}}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	ref := func(i int) functions.Ref { return functions.Ref{Namespace: "n", Name: fmt.Sprint(i)} }
	for i := range 100 {
		d.set(ref(i), now.Add(time.Duration(i*37%100)*time.Second))
	}
	for i := range 100 {
		switch i % 3 {
		case 0:
			d.set(ref(i), time.Time{})
		case 1:
			d.set(ref(i), now.Add(time.Duration(200+i)*time.Second))
		}
	}
	var last time.Time
	for n := 0; ; n++ {
		next := d.next()
		if next.IsZero() {
			if n != 66 || len(d.at) != 0 {
				t.Fatalf("%d times came, %d are left", n, len(d.at))
			}
			return
		}
		if got := d.take(next.Add(-1), 10); len(got) != 0 || next.Before(last) {
			t.Fatalf("%v came too early, or after %s", got, last)
		}
		got := d.take(next, 1)
		if len(got) != 1 || d.has(got[0]) {
			t.Fatalf("at %s came %v", next, got)
		}
		last = next
	}
}
