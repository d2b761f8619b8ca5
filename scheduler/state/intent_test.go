package state_test

import (
	"testing"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/scheduler/state"
)

// A wish about a node holds whatever is heard of it, and when: before its first report, over a new boot, beside its worker's own drain.
func TestNodeIntent(t *testing.T) {
	t.Parallel()
	s := state.New()
	want := func(intent functions.NodeIntent) {
		s.SetNode(functions.NodeSettings{Node: "n1", Intent: intent, Reason: "why"})
	}
	is := func(when string, cordoned, draining bool) {
		t.Helper()
		if n := s.Nodes["n1"]; n.Cordoned != cordoned || n.Draining != draining {
			t.Errorf("%s: cordoned %t, draining %t", when, n.Cordoned, n.Draining)
		}
		if placed := reserve(s, "ins_"+when); (placed == nil) != (cordoned || draining) {
			t.Errorf("%s: placed %+v", when, placed)
		}
	}
	want(functions.NodeCordoned)
	s.ApplyReport(start, report("n1", "b1", 1, true))
	is("stored before the first report", true, false)
	want(functions.NodeDrained)
	is("drained", false, true)
	s.ApplyReport(start, report("n1", "b2", 1, true))
	is("another boot", false, true)
	stopping := report("n1", "b2", 2, true)
	stopping.State.Draining = true
	s.ApplyReport(start, stopping)
	s.DeleteNode("n1")
	is("its worker stops", false, true)
	s.ApplyReport(start, report("n1", "b2", 3, true))
	is("open", false, false)
	s.Nodes["n1"].DrainedFrom = 4
	want(functions.NodeCordoned)
	if n := s.Nodes["n1"]; n.DrainedFrom != 0 || n.Drained() {
		t.Errorf("a drain that ended left %d", n.DrainedFrom)
	}
}
