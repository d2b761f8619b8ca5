package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
)

// same fails unless the data is what a real worker writes.
func same(t *testing.T, msg any, data []byte) {
	t.Helper()
	want, err := json.Marshal(msg)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(data)); diff != "" {
		t.Errorf("%T (-want +got):\n%s", msg, diff)
	}
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
	in.state = functions.InstanceReady
	same(t, report, in.report(nil))
	same(t, bus.Endpoint{
		Instance: "ins_a", Node: "nod_a", Namespace: "ns", Function: "fn-00007", Revision: "rev_a", Slots: 3, Started: at, Ready: in.ready, Phases: phases,
	}, in.endpoint(nil, "nod_a"))
	same(t, bus.Departure{Instance: "ins_a", State: functions.InstanceReady, Reason: in.reason}, in.departure(nil))
}

// A worker that only waits writes whole messages as a real one does.
func TestFakeNodeSpeaksAsARealOne(t *testing.T) {
	t.Parallel()
	size := functions.Resources{CPU: 16000, Memory: 64 << 30, Instances: 500}
	state := bus.NodeState{Name: "node-0001", Architecture: "amd64", Capacity: size, Allocatable: size, CPUUsed: 100, MemoryUsed: 1 << 30}
	head := bus.Envelope{Schema: bus.Schema, Boot: "node-0001", Node: "nod_a", Epoch: bus.Epoch}
	n := &fakeNode{id: "nod_a", name: "node-0001"}
	said := func() []byte {
		defer func() { n.room, n.sends = nil, nil }()
		if last := len(n.room) - 1; last < 0 || n.room[last] != '\n' || len(n.sends) != 1 || n.sends[0].end != last+1 {
			t.Fatalf("%q is no message", n.room)
		}
		return n.room[:len(n.room)-1]
	}
	n.report(nil, true, []string{"sha256:00", "sha256:01"}, true)
	head.Sequence, state.Artifacts, state.ArtifactsKept = 1, []string{"sha256:00", "sha256:01"}, true
	same(t, bus.Report{Envelope: head, Full: true, State: state}, said())
	n.report(nil, true, nil, false)
	head.Sequence, state.Artifacts, state.ArtifactsKept = 2, nil, false
	same(t, bus.Report{Envelope: head, Full: true, State: state}, said())
	n.report(jsonList(`{"instance":"ins_a"}`), false, nil, true)
	if got, want := string(said()), `"artifactsKept":true},"instances":[{"instance":"ins_a"}]}`; !strings.HasSuffix(got, want) {
		t.Errorf("%s does not end with %s", got, want)
	}
	n.table(&fakeBatch{fullTable: true})
	head.Sequence = 1
	same(t, bus.EndpointTable{Envelope: head, Full: true}, said())
	n.listener = `,"listener":{}`
	n.table(&fakeBatch{added: jsonList(`{}`), removed: jsonList(`{}`)})
	if got, want := string(said()), `"full":false,"endpoints":[{}],"listener":{},"removed":[{}]}`; !strings.HasSuffix(got, want) {
		t.Errorf("%s does not end with %s", got, want)
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
