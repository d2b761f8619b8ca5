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
	c := fakeCommand{Instance: "ins_a", Action: bus.ActionStart, Asked: at.Add(-time.Millisecond)}
	rev := functions.Revision{ID: "rev_a", Namespace: "ns", Function: "fn-00007", Config: functions.Config{Concurrency: 3}.WithDefaults()}
	known := newFakeRevision(&rev)
	in := newFakeInstance(c, &known, &mark{}, at)
	in.becomeReady(at.Add(time.Second))
	in.reason, in.held, in.lastUsed = `it "is"`, 2, at.Add(2*time.Second)
	phases := functions.Phases{
		Place: functions.Duration(time.Millisecond), Create: functions.Duration(28 * time.Millisecond), Start: functions.Duration(2 * time.Millisecond),
		Ready: functions.Duration(10 * time.Millisecond),
	}
	report := bus.InstanceReport{
		Instance: "ins_a", Namespace: "ns", Function: "fn-00007", Revision: "rev_a", State: functions.InstanceReady, Reason: in.reason, Since: in.since, Started: at,
		Slots: 3, Held: 2, LastUsed: in.lastUsed, Reserved: rev.Config.Limits.Resources(), PID: 4711, Phases: phases,
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

// What a worker that only waits finds in a command is what is in it.
func TestReadCommand(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 678_900_000, time.UTC)
	rev := functions.Revision{
		ID: "rev_a", Namespace: "ns", Function: "fn-00007", Created: at.Add(-time.Hour), Artifact: functions.Artifact{Digest: digestOf(7)},
		Config: functions.Config{Env: map[string]string{"reason": "asked"}, Labels: map[string]string{"action": "stop"}}.WithDefaults(),
	}
	head := bus.Envelope{Schema: bus.Schema, Boot: "b", Node: "nod_a", Instance: "ins_a", Sequence: 7, Epoch: bus.Epoch}
	node := head
	node.Instance = ""
	for _, c := range []bus.Command{
		{Envelope: head, Action: bus.ActionStart, Revision: &rev, Reason: "1 waiting", Asked: at},
		{Envelope: head, Action: bus.ActionStop, Reason: "idle", Asked: at},
		{Envelope: head, Action: bus.ActionDrain, Reason: "moved", Asked: at, Deadline: at.Add(time.Minute)},
		{Envelope: node, Action: bus.ActionReport, Asked: at},
	} {
		data, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		want := fakeCommand{Instance: c.Instance, Action: c.Action, Reason: c.Reason, Asked: c.Asked}
		if c.Revision != nil {
			want.Function = c.Revision.Function
		}
		got, err := readCommand(data)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", c.Action, err, diff)
		}
	}
	for _, bad := range []string{"", "{}", `{"action":"start","instance":"ins_a","asked":"2026-01-02T03:04:05Z"}`, `{"action":"stop","instance":"ins_a","asked":"noon"}`, `{"action":"`} {
		if c, err := readCommand([]byte(bad)); err == nil {
			t.Errorf("%q was read as %+v", bad, c)
		}
	}
}
