package main

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
)

// read reads strictly: a field that the bus does not know would be work for nobody.
func read[T any](t *testing.T, data []byte) (v T) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%s: %v", data, err)
	}
	return v
}

// What a worker that only waits writes by hand is what a real one says.
func TestFakeInstanceSpeaksAsARealOne(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 678_900_000, time.UTC)
	c := fakeCommand{Action: bus.ActionStart, Asked: at.Add(-time.Millisecond), Revision: &fakeRevision{ID: "rev_a", Namespace: "ns", Function: "fn-00007"}}
	c.Instance, c.Revision.Config.Concurrency = "ins_a", 3
	c.Revision.Config.Limits = functions.Config{}.WithDefaults().Limits
	in := newFakeInstance(c, at)
	in.becomeReady(at.Add(time.Second))
	in.reason, in.held, in.lastUsed = `it "is"`, 2, at.Add(2*time.Second)
	phases := functions.Phases{
		Place: functions.Duration(time.Millisecond), Create: functions.Duration(28 * time.Millisecond), Start: functions.Duration(2 * time.Millisecond),
		Ready: functions.Duration(10 * time.Millisecond),
	}
	report := bus.InstanceReport{
		Instance: "ins_a", Namespace: "ns", Function: "fn-00007", Revision: "rev_a", State: functions.InstanceReady, Reason: in.reason, Since: in.since, Started: at,
		Slots: 3, Held: 2, LastUsed: in.lastUsed, Reserved: c.Revision.Config.Limits.Resources(), PID: 4711, Phases: phases,
	}
	var list jsonList
	list.add(in.report)
	list.add(in.report)
	got := read[[]bus.InstanceReport](t, append(append([]byte("["), list...), ']'))
	if diff := cmp.Diff([]bus.InstanceReport{report, report}, got); diff != "" {
		t.Errorf("reports (-want +got):\n%s", diff)
	}
	endpoint := bus.Endpoint{
		Instance: "ins_a", Node: "nod_a", Namespace: "ns", Function: "fn-00007", Revision: "rev_a", Slots: 3, Started: at, Ready: in.ready, Phases: phases,
	}
	if diff := cmp.Diff(endpoint, read[bus.Endpoint](t, in.endpoint(nil, "nod_a"))); diff != "" {
		t.Errorf("endpoint (-want +got):\n%s", diff)
	}
	departure := bus.Departure{Instance: "ins_a", State: functions.InstanceReady, Reason: in.reason}
	if diff := cmp.Diff(departure, read[bus.Departure](t, in.departure(nil))); diff != "" {
		t.Errorf("departure (-want +got):\n%s", diff)
	}
}
