package reconcile_test

import (
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/scheduler/reconcile"
)

// A worker whose report was missed is asked alone, and not again before it had time to answer.
func TestAMissedReportIsAskedOfItsNode(t *testing.T) {
	t.Parallel()
	core := reconcile.New(reconcile.Config{}, functions.NewInstanceID)
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	core.Synced(now)
	all := functions.Resources{CPU: 1000, Memory: functions.GiB, Instances: 10}
	report := func(node functions.NodeID, sequence uint64, full bool) (asked []functions.NodeID) {
		for _, e := range core.Report(now, bus.Report{
			Envelope: bus.Envelope{Boot: "b", Node: node, Sequence: sequence}, Full: full, State: bus.NodeState{Allocatable: all},
		}) {
			if e.Kind != reconcile.Send || e.Command.Action != bus.ActionReport || e.Command.Instance != "" {
				t.Errorf("a report led to %+v", e)
				continue
			}
			asked = append(asked, e.Command.Node)
		}
		return asked
	}
	now = now.Add(time.Second)
	for _, node := range []functions.NodeID{"nod_a", "nod_b"} {
		if asked := report(node, 1, true); len(asked) != 0 {
			t.Errorf("a full report led to questions: %v", asked)
		}
	}
	if asked := report("nod_a", 2, false); len(asked) != 0 {
		t.Errorf("nothing was missed, and yet %v are asked", asked)
	}
	if asked := report("nod_b", 3, false); len(asked) != 1 || asked[0] != "nod_b" {
		t.Errorf("a report of nod_b was missed: %v are asked", asked)
	}
	if asked := report("nod_b", 5, false); len(asked) != 0 {
		t.Errorf("asked again at once: %v", asked)
	}
	now = now.Add(time.Second)
	if asked := report("nod_b", 7, false); len(asked) != 1 {
		t.Errorf("not asked again for what is still missed: %v", asked)
	}
}
