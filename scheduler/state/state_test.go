package state_test

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/scheduler/autoscale"
	"github.com/tatami-faas/tatami/scheduler/keepalive"
	"github.com/tatami-faas/tatami/scheduler/placement"
	"github.com/tatami-faas/tatami/scheduler/state"
	"pgregory.net/rapid"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

var ref = functions.Ref{Namespace: "default", Name: "hello"}

func record(live, candidate string) functions.Function {
	return functions.Function{Namespace: ref.Namespace, Name: ref.Name, Live: functions.RevisionID(live), Candidate: functions.RevisionID(candidate)}
}

var size = functions.Resources{CPU: 250, Memory: functions.GiB, Instances: 1}

func report(node, boot string, seq uint64, full bool, list ...bus.InstanceReport) bus.Report {
	return bus.Report{
		Envelope: bus.Envelope{Schema: 1, Boot: boot, Node: functions.NodeID(node), Sequence: seq}, Full: full, Instances: list,
		State: bus.NodeState{Name: node, Architecture: "amd64", Allocatable: functions.Resources{CPU: 4000, Memory: 8 * functions.GiB, Instances: 10}},
	}
}

func instance(id string, st functions.InstanceState) bus.InstanceReport {
	return bus.InstanceReport{Instance: functions.InstanceID(id), Namespace: ref.Namespace, Function: ref.Name, Revision: "r1", State: st, Since: start, Reserved: size}
}

func reserve(s *state.State, id string) *state.Instance {
	in := state.Instance{InstanceReport: instance(id, "")}
	placed, _ := s.Reserve(start, in, &placement.Request{Resources: size, Namespace: ref.Namespace}, func() functions.InstanceID { return functions.InstanceID(id) })
	return placed
}

func reserved(s *state.State, node functions.NodeID) functions.Resources {
	return s.Reserved(s.Nodes[node])
}

func known(t *testing.T, s *state.State, want ...functions.InstanceID) {
	t.Helper()
	got := map[functions.InstanceID]bool{}
	for id := range s.Instances {
		got[id] = true
	}
	for _, id := range want {
		if !got[id] {
			t.Errorf("%s is not known", id)
		}
		delete(got, id)
	}
	for id := range got {
		t.Errorf("%s is known", id)
	}
}

func TestAnUnconfirmedStartOutlivesAFullReport(t *testing.T) {
	t.Parallel()
	s := state.New()
	s.ApplyReport(start, report("n1", "b1", 1, true))
	reserve(s, "ins_a")
	s.ApplyReport(start, report("n1", "b1", 2, true))
	known(t, s, "ins_a")
	if got := reserved(s, "n1"); got != size {
		t.Errorf("reserved %s", got)
	}
	s.ApplyReport(start, report("n1", "b1", 3, false, instance("ins_a", functions.InstanceStarting)))
	c := s.ApplyReport(start, report("n1", "b1", 4, true))
	known(t, s)
	if len(c.Gone) != 1 || !c.Gone[0].Lost || !c.Freed {
		t.Errorf("a confirmed one that is no longer named: %+v", c)
	}
	if got := reserved(s, "n1"); got != (functions.Resources{}) {
		t.Errorf("still reserved: %s", got)
	}
}

func TestANodeIsPlaceableAfterItsFirstFullReport(t *testing.T) {
	t.Parallel()
	s := state.New()
	c := s.ApplyReport(start, report("n1", "b1", 7, false, instance("ins_a", functions.InstanceReady)))
	if s.Nodes["n1"].Known || !c.ReportsWanted || c.Freed {
		t.Errorf("after a delta: known %t, %+v", s.Nodes["n1"].Known, c)
	}
	c = s.ApplyReport(start, report("n1", "b1", 8, true, instance("ins_a", functions.InstanceReady), instance("ins_b", functions.InstanceReady)))
	if !s.Nodes["n1"].Known || !c.Freed || len(c.Ready) != 1 {
		t.Errorf("after a full one: known %t, %+v", s.Nodes["n1"].Known, c)
	}
	known(t, s, "ins_a", "ins_b")
	// Another boot: unknown until it has said all, and what it does not name is gone then.
	s.ApplyReport(start, report("n1", "b2", 1, false))
	if s.Nodes["n1"].Known {
		t.Error("known after a reboot")
	}
	known(t, s, "ins_a", "ins_b")
	s.ApplyReport(start, report("n1", "b2", 2, true, instance("ins_b", functions.InstanceReady)))
	known(t, s, "ins_b")
}

func TestAGapAsksForReports(t *testing.T) {
	t.Parallel()
	s := state.New()
	s.ApplyReport(start, report("n1", "b1", 1, true))
	if c := s.ApplyReport(start, report("n1", "b1", 3, false)); !c.ReportsWanted {
		t.Error("a gap went unnoticed")
	}
	if c := s.ApplyReport(start, report("n1", "b1", 9, true)); c.ReportsWanted {
		t.Error("a full report closes every gap")
	}
}

func TestArtifactsThatAreNotRepeatedStay(t *testing.T) {
	t.Parallel()
	s := state.New()
	list := report("n1", "b1", 1, true)
	list.State.Artifacts = []string{"a", "b"}
	s.ApplyReport(start, list)
	kept := func(boot string, seq uint64) state.Change {
		r := report("n1", boot, seq, true)
		r.State.ArtifactsKept = true
		return s.ApplyReport(start, r)
	}
	has := func(want int) {
		t.Helper()
		if n := s.Nodes["n1"]; len(n.Artifacts) != want || len(n.Report.Artifacts) != want {
			t.Errorf("artifacts %v, reported %v, want %d", n.Artifacts, n.Report.Artifacts, want)
		}
	}
	if c := kept("b1", 2); c.ReportsWanted {
		t.Error("asked for what is known")
	}
	has(2)
	// The list may have been in what was missed: every report asks until one lists.
	for seq := uint64(4); seq < 6; seq++ {
		if c := kept("b1", seq); !c.ReportsWanted {
			t.Error("a gap went unnoticed")
		}
	}
	has(2)
	s.ApplyReport(start, report("n1", "b1", 6, true))
	has(0)
	if c := kept("b1", 7); c.ReportsWanted {
		t.Error("asked again after a list")
	}
	if c := kept("b2", 1); !c.ReportsWanted {
		t.Error("another run of the worker listed nothing, and is not asked")
	}
}

func TestArtifactsThatCameAreAddedToThoseThatStay(t *testing.T) {
	t.Parallel()
	s := state.New()
	say := func(kept bool, digests ...string) {
		t.Helper()
		r := report("n1", "b1", 1, true)
		if n := s.Nodes["n1"]; n != nil {
			r.Sequence = n.Sequence + 1
		}
		r.State.Artifacts, r.State.ArtifactsKept = digests, kept
		s.ApplyReport(start, r)
	}
	held := func(want ...string) {
		t.Helper()
		n := s.Nodes["n1"]
		if got := slices.Sorted(maps.Keys(n.Artifacts)); !slices.Equal(got, want) {
			t.Errorf("placement knows of %v, want %v", got, want)
		}
		if got := slices.Sorted(slices.Values(n.Report.Artifacts)); !slices.Equal(got, want) {
			t.Errorf("shown are %v, want %v", got, want)
		}
		for _, d := range want {
			r := placement.Request{Digest: d, Resources: functions.Resources{CPU: 1, Memory: 1, Instances: 1}}
			if c := s.Engine().Place(&r); c.ID != "n1" || !c.Home {
				t.Errorf("the engine does not know of %s: %+v", d, c)
			}
		}
	}
	// What no node has goes to this one.
	s.ApplyReport(start, report("n0", "b1", 1, true))
	say(true, "a")
	held("a")
	say(false, "b", "c")
	held("b", "c")
	say(true, "a", "c")
	held("a", "b", "c")
	say(true)
	held("a", "b", "c")
	say(false, "c")
	held("c")
}

func TestAReportThatSaysNothingNewChangesNoFunction(t *testing.T) {
	t.Parallel()
	s := state.New()
	s.SetFunction(start, record("r1", ""))
	s.ApplyReport(start, report("n1", "b1", 1, true, instance("ins_a", functions.InstanceReady)))
	at := start
	apply := func(change func(in *bus.InstanceReport)) int {
		t.Helper()
		at = at.Add(time.Second)
		in := instance("ins_a", functions.InstanceReady)
		if change != nil {
			change(&in)
		}
		return len(s.ApplyReport(at, report("n1", "b1", s.Nodes["n1"].Sequence+1, true, in)).Functions)
	}
	if n := apply(nil); n != 0 {
		t.Errorf("the same again: %d functions", n)
	}
	if n := apply(func(in *bus.InstanceReport) { in.Usage.Memory = 1 }); n != 0 {
		t.Errorf("another usage: %d functions", n)
	}
	used := at
	for name, change := range map[string]func(in *bus.InstanceReport){
		"held":  func(in *bus.InstanceReport) { in.Held = 1 },
		"used":  func(in *bus.InstanceReport) { in.LastUsed = used },
		"state": func(in *bus.InstanceReport) { in.State = functions.InstanceDraining },
	} {
		if n := apply(change); n != 1 {
			t.Errorf("%s: %d functions", name, n)
		}
		apply(nil)
	}
	// The first report after demand tells what that demand left behind.
	s.ApplyDemand(at, bus.Demand{Gateway: "g", Envelope: bus.Envelope{Boot: "b", Sequence: 1}, Functions: []bus.FunctionDemand{{Namespace: ref.Namespace, Function: ref.Name, Waiting: 1}}})
	if n := apply(nil); n != 1 {
		t.Errorf("after demand: %d functions", n)
	}
	if n := apply(nil); n != 0 {
		t.Errorf("the report after that: %d functions", n)
	}
}

func TestPartialDemandLeavesTheOthers(t *testing.T) {
	t.Parallel()
	s := state.New()
	for _, name := range []string{"a", "b"} {
		s.SetFunction(start, functions.Function{Namespace: "default", Name: name})
	}
	seq := uint64(0)
	say := func(partial bool, waiting map[string]int) []functions.Ref {
		seq++
		d := bus.Demand{Gateway: "g", Partial: partial, Envelope: bus.Envelope{Boot: "b", Sequence: seq}}
		for name, n := range waiting {
			d.Functions = append(d.Functions, bus.FunctionDemand{Namespace: "default", Function: name, Waiting: n})
		}
		return s.ApplyDemand(start, d)
	}
	level := func(name string) int {
		w, _, _ := s.Functions[functions.Ref{Namespace: "default", Name: name}].Level()
		return w
	}
	say(false, map[string]int{"a": 2})
	if changed := say(true, map[string]int{"b": 3}); len(changed) != 1 || level("a") != 2 || level("b") != 3 {
		t.Errorf("after a partial statement: changed %v, levels %d and %d", changed, level("a"), level("b"))
	}
	if changed := say(false, map[string]int{"a": 1}); len(changed) != 2 || level("a") != 1 || level("b") != 0 {
		t.Errorf("after a whole one: changed %v, levels %d and %d", changed, level("a"), level("b"))
	}
	say(true, map[string]int{"b": 4})
	s.Expire(start.Add(state.DemandTimeout))
	if level("a")+level("b") != 0 {
		t.Errorf("a silent gateway's levels hold: %d and %d", level("a"), level("b"))
	}
}

// Everything may be stated in parts: with the last of them, and not before, what none named is silent; a part that was missed puts that off.
func TestDemandInParts(t *testing.T) {
	t.Parallel()
	s := state.New()
	for _, name := range []string{"a", "b", "c"} {
		s.SetFunction(start, functions.Function{Namespace: "default", Name: name})
	}
	seq := uint64(0)
	say := func(part int, last bool, names ...string) {
		seq++
		d := bus.Demand{Gateway: "g", Partial: true, Part: part, Last: last, Envelope: bus.Envelope{Boot: "b", Sequence: seq}}
		for _, name := range names {
			d.Functions = append(d.Functions, bus.FunctionDemand{Namespace: "default", Function: name, Waiting: 1})
		}
		s.ApplyDemand(start, d)
	}
	levels := func(want ...int) {
		t.Helper()
		for i, name := range []string{"a", "b", "c"} {
			if w, _, _ := s.Functions[functions.Ref{Namespace: "default", Name: name}].Level(); w != want[i] {
				t.Errorf("%s: %d wait, want %d", name, w, want[i])
			}
		}
	}
	say(1, false, "a", "b")
	say(2, true, "c")
	levels(1, 1, 1)
	say(1, false, "a")
	say(0, false, "c")
	levels(1, 1, 1)
	say(2, true)
	levels(1, 0, 1)
	say(1, false, "a")
	seq++
	say(3, true)
	levels(1, 0, 1)
	seq++
	say(2, true)
	levels(1, 0, 1)
	say(1, true, "b")
	levels(0, 1, 0)
}

func TestARefusedStopIsForgotten(t *testing.T) {
	t.Parallel()
	s := state.New()
	s.ApplyReport(start, report("n1", "b1", 1, true, instance("ins_a", functions.InstanceReady)))
	in := s.Instances["ins_a"]
	in.Stopping = start
	s.ApplyReport(start.Add(100*time.Millisecond), report("n1", "b1", 2, true, instance("ins_a", functions.InstanceReady)))
	if in.Stopping.IsZero() {
		t.Error("a report that crossed the command counts as a refusal")
	}
	held := instance("ins_a", functions.InstanceReady)
	held.Held = 1
	s.ApplyReport(start.Add(200*time.Millisecond), report("n1", "b1", 3, false, held))
	if !in.Stopping.IsZero() {
		t.Error("still stopping though a slot is held")
	}
}

// silence lets so many beats pass that every node that is not heard of is lost.
func silence(s *state.State, now time.Time) {
	for range state.MissedBeats {
		s.Beat(now)
	}
}

// A scheduler that stood still has lost nobody by that: its own beats count, not the time.
func TestASchedulerThatStoodStillLosesNobody(t *testing.T) {
	t.Parallel()
	s := state.New()
	s.ApplyReport(start, report("n1", "b1", 1, true, instance("ins_a", functions.InstanceReady)))
	for i := range 4 * state.MissedBeats {
		at := start.Add(time.Duration(i+1) * time.Hour)
		s.Expire(at)
		if c := s.Beat(at); len(c.Gone) != 0 {
			t.Fatalf("%+v", c.Gone)
		}
		if i%2 == 1 {
			s.ApplyReport(at, report("n1", "b1", uint64(i+2), false))
		}
	}
	known(t, s, "ins_a")
}

func TestASilentNodeLosesItsInstances(t *testing.T) {
	t.Parallel()
	s := state.New()
	s.SetFunction(start, record("r1", ""))
	s.ApplyReport(start, report("n1", "b1", 1, true, instance("ins_a", functions.InstanceReady)))
	for range state.MissedBeats - 1 {
		if c := s.Beat(start.Add(time.Hour)); len(c.Gone) != 0 {
			t.Errorf("gone too early: %+v", c.Gone)
		}
	}
	if c := s.Beat(start.Add(time.Hour)); len(c.Gone) != 1 || !s.Nodes["n1"].Lost {
		t.Errorf("%+v", c)
	}
	known(t, s)
	s.Expire(start.Add(state.NodeForgotten))
	if len(s.Nodes) != 0 || len(s.NodeOrder()) != 0 {
		t.Error("a node that is long lost is still shown")
	}
}

// A node that says that it leaves is empty at once, and no longer shown after a while; one that comes back is a node as before.
func TestANodeThatLeaves(t *testing.T) {
	t.Parallel()
	s := state.New()
	s.SetFunction(start, record("r1", ""))
	s.ApplyReport(start, report("n1", "b1", 1, true))
	reserve(s, "ins_a")
	leaves := report("n1", "b1", 2, true)
	leaves.State.Draining, leaves.State.Departed = true, true
	c := s.ApplyReport(start, leaves)
	if len(c.Gone) != 1 || c.Gone[0].Reason != "node n1 has left" {
		t.Errorf("what was on its way: %+v", c.Gone)
	}
	known(t, s)
	if n := s.Nodes["n1"]; !n.Lost || n.Open() {
		t.Errorf("the node that left: %+v", n.Node)
	}
	s.Expire(start.Add(state.NodeForgotten - 1))
	s.ApplyReport(start, report("n1", "b2", 1, true))
	if n := s.Nodes["n1"]; n == nil || !n.Open() || n.Report.Departed {
		t.Errorf("the node that is back: %+v", n)
	}
	leaves.Boot, leaves.Sequence = "b2", 2
	s.ApplyReport(start, leaves)
	s.Expire(start.Add(state.NodeForgotten))
	if len(s.Nodes) != 0 {
		t.Error("a node that has left long ago is still shown")
	}
}

func TestDemandIsALevel(t *testing.T) {
	t.Parallel()
	s := state.New()
	s.SetFunction(start, record("r1", ""))
	say := func(gateway string, seq uint64, at time.Time, list ...bus.FunctionDemand) int {
		return len(s.ApplyDemand(at, bus.Demand{Envelope: bus.Envelope{Boot: "b", Sequence: seq}, Gateway: gateway, Functions: list}))
	}
	need := func(waiting, inFlight int) bus.FunctionDemand {
		return bus.FunctionDemand{Namespace: ref.Namespace, Function: ref.Name, Waiting: waiting, InFlight: inFlight, Concurrency: float64(waiting + inFlight)}
	}
	level := func(waiting, inFlight int) {
		t.Helper()
		if w, _, i := s.Functions[ref].Level(); w != waiting || i != inFlight {
			t.Errorf("level %d waiting, %d in flight, want %d, %d", w, i, waiting, inFlight)
		}
	}
	say("g1", 1, start, need(2, 3))
	say("g2", 1, start, need(1, 1), bus.FunctionDemand{Namespace: "x", Function: "unknown", Waiting: 5})
	level(3, 4)
	if n := say("g1", 1, start, need(9, 9)); n != 0 {
		t.Error("a repeated message counted")
	}
	say("g1", 2, start.Add(time.Second))
	level(1, 1)
	if c := s.Expire(start.Add(state.DemandTimeout)); len(c.Functions) == 0 {
		t.Error("a silent gateway's demand changed nothing")
	}
	level(0, 0)
	if _, ok := s.Functions[functions.Ref{Namespace: "x", Name: "unknown"}]; ok {
		t.Error("demand for a function that does not exist is kept")
	}
}

func TestNothingIsLeftOfADeletedFunction(t *testing.T) {
	t.Parallel()
	s := state.New()
	s.SetFunction(start, record("r1", ""))
	s.SetRevision(functions.Revision{ID: "r1", Namespace: ref.Namespace, Function: ref.Name, Config: functions.Config{Labels: map[string]string{"tier": "heavy"}}})
	s.ApplyReport(start, report("n1", "b1", 1, true, instance("ins_a", functions.InstanceReady)))
	near := functions.Revision{ID: "r2", Namespace: ref.Namespace, Function: "near", Config: functions.Config{Placement: functions.Placement{Near: []string{"tier=heavy"}}}}
	f, rev := &state.Function{Ref: near.Ref()}, &state.Revision{Record: &near}
	if got := s.Request(f, rev).Near; len(got) != 1 {
		t.Errorf("near %v, want the one instance's node", got)
	}
	s.DeleteFunction(ref)
	if got := s.Request(f, rev).Near; len(got) != 0 {
		t.Errorf("near %v, where the function is deleted", got)
	}
	s.DeleteRevision(ref, "r1")
	if len(s.Functions) != 1 {
		t.Error("forgotten while an instance runs")
	}
	s.ApplyReport(start, report("n1", "b1", 2, false, instance("ins_a", functions.InstanceStopped)))
	if _, live := s.Engine().Len(); len(s.Functions) != 0 || live != 0 || s.Budget(ref.Namespace).Used != (functions.Resources{}) {
		t.Errorf("left: %d functions, %d reservations, %s in use", len(s.Functions), live, s.Budget(ref.Namespace).Used)
	}
}

// step is one input to the state.
type step func(s *state.State)

var anyStep = rapid.Custom(func(t *rapid.T) step {
	node := fmt.Sprintf("n%d", rapid.IntRange(0, 2).Draw(t, "node"))
	boot := fmt.Sprintf("b%d", rapid.IntRange(0, 1).Draw(t, "boot"))
	seq := rapid.Uint64Range(1, 20).Draw(t, "seq")
	at := start.Add(time.Duration(rapid.IntRange(0, 20).Draw(t, "at")) * time.Second)
	id := fmt.Sprintf("ins_%d", rapid.IntRange(0, 5).Draw(t, "instance"))
	switch rapid.IntRange(0, 8).Draw(t, "kind") {
	case 0:
		rec := record(rapid.SampledFrom([]string{"", "r1", "r2"}).Draw(t, "live"), rapid.SampledFrom([]string{"", "r2", "r3"}).Draw(t, "candidate"))
		return func(s *state.State) { s.SetFunction(at, rec) }
	case 1:
		return func(s *state.State) { s.DeleteFunction(ref) }
	case 2:
		return func(s *state.State) {
			s.SetRevision(functions.Revision{ID: "r1", Namespace: ref.Namespace, Function: ref.Name})
		}
	case 3:
		return func(s *state.State) { s.DeleteRevision(ref, "r1") }
	case 4:
		q := functions.Quota{Namespace: ref.Namespace, CPU: rapid.Int64Range(1, 9).Draw(t, "cpu")}
		return func(s *state.State) { s.SetQuota(q) }
	case 5:
		d := bus.Demand{Envelope: bus.Envelope{Boot: boot, Sequence: seq}, Gateway: node}
		if rapid.Bool().Draw(t, "named") {
			d.Functions = []bus.FunctionDemand{{Namespace: ref.Namespace, Function: ref.Name, Waiting: int(seq), Concurrency: 1}}
		}
		return func(s *state.State) { s.ApplyDemand(at, d) }
	case 6:
		beats := rapid.SampledFrom([]int{0, state.MissedBeats}).Draw(t, "beats")
		return func(s *state.State) {
			s.Expire(at)
			for range beats {
				s.Beat(at)
			}
		}
	case 7:
		return func(s *state.State) {
			if s.Instances[functions.InstanceID(id)] == nil {
				reserve(s, id)
			}
		}
	default:
		n := rapid.IntRange(0, 3).Draw(t, "instances")
		var list []bus.InstanceReport
		for i := range n {
			st := rapid.SampledFrom([]functions.InstanceState{functions.InstanceStarting, functions.InstanceReady, functions.InstanceDraining, functions.InstanceStopped, functions.InstanceFailed}).Draw(t, "state")
			in := instance(fmt.Sprintf("ins_%d", (int(seq)+i)%6), st)
			in.Reserved = functions.Resources{CPU: size.CPU * rapid.Int64Range(0, 2).Draw(t, "cpu")}
			list = append(list, in)
		}
		r := report(node, boot, seq, rapid.Bool().Draw(t, "full"), list...)
		r.State.Draining = rapid.IntRange(0, 4).Draw(t, "draining") == 0
		return func(s *state.State) { s.ApplyReport(at, r) }
	}
})

// same compares two states; the events' rings and the pointers from node to instance are covered by what they hold.
var same = cmp.Options{
	cmp.Exporter(func(t reflect.Type) bool { return t.PkgPath() == reflect.TypeFor[autoscale.History]().PkgPath() }),
	cmp.AllowUnexported(keepalive.Peak{}, state.Events{}),
	cmpopts.IgnoreUnexported(state.State{}, state.Function{}),
	cmpopts.EquateEmpty(),
}

// A worker speaks for its own node: what it says of another's instances is not taken, whatever it says.
func TestAReportSpeaksForItsOwnNode(t *testing.T) {
	t.Parallel()
	s := state.New()
	s.ApplyReport(start, report("n1", "b1", 1, true, instance("ins_a", functions.InstanceReady)))
	before := s.Instances["ins_a"].InstanceReport
	for i, st := range []functions.InstanceState{functions.InstanceReady, functions.InstanceDraining, functions.InstanceStopped, functions.InstanceFailed} {
		c := s.ApplyReport(start, report("n2", "b2", uint64(i+1), i == 0, instance("ins_a", st)))
		if len(c.Foreign) != 1 || c.Foreign[0] != "ins_a" || len(c.Gone) != 0 || len(c.Ready) != 0 {
			t.Errorf("%s: %+v", st, c)
		}
	}
	known(t, s, "ins_a")
	if in := s.Instances["ins_a"]; in.Node != "n1" || in.State != before.State || reserved(s, "n1") != size || reserved(s, "n2") != (functions.Resources{}) {
		t.Errorf("%+v; reserved %s and %s", in, reserved(s, "n1"), reserved(s, "n2"))
	}
	// Once its node is lost, the instance is whose worker has it.
	silence(s, start.Add(3*time.Second))
	if c := s.ApplyReport(start.Add(4*time.Second), report("n2", "b2", 10, true, instance("ins_a", functions.InstanceReady))); len(c.Foreign) != 0 {
		t.Errorf("%+v", c)
	}
	if in := s.Instances["ins_a"]; in == nil || in.Node != "n2" {
		t.Errorf("%+v", in)
	}
}

// Each input applied twice leaves what it left the first time, and what is reserved is always the sum over the instances.
func TestReducersAreIdempotentAndTheirSumsHold(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		once, twice := state.New(), state.New()
		for _, apply := range rapid.SliceOfN(anyStep, 1, 40).Draw(t, "steps") {
			apply(once)
			apply(twice)
			apply(twice)
			if diff := cmp.Diff(once, twice, same); diff != "" {
				t.Fatalf("applied twice (-once +twice):\n%s", diff)
			}
			checkSums(t, once)
			checkSums(t, twice)
		}
	})
}

func checkSums(t *rapid.T, s *state.State) {
	byNode, byNamespace := map[functions.NodeID]functions.Resources{}, map[string]functions.Resources{}
	for id, in := range s.Instances {
		if on, amount := s.Engine().Held(in.Reservation); on != s.Nodes[in.Node].Ref || amount != in.Reserved {
			t.Fatalf("%s on %s holds %s, the engine has %s", id, in.Node, in.Reserved, amount)
		}
		byNode[in.Node] = byNode[in.Node].Add(in.Reserved)
		byNamespace[in.Namespace] = byNamespace[in.Namespace].Add(in.Reserved)
		if in.State.Gone() || s.Functions[in.Ref()].Instances[id] != in || s.Nodes[in.Node].Instances[id] != in {
			t.Fatalf("%s is not where it belongs", id)
		}
	}
	for id, n := range s.Nodes {
		if got := s.Reserved(n); got != byNode[id] || s.Engine().Ref(id) != n.Ref {
			t.Fatalf("%s has %s reserved, its instances hold %s", id, got, byNode[id])
		}
	}
	if got := s.Budget(ref.Namespace).Used; got != byNamespace[ref.Namespace] {
		t.Fatalf("%s used, the instances hold %s", got, byNamespace[ref.Namespace])
	}
	if nodes, live := s.Engine().Len(); nodes != len(s.Nodes) || live != len(s.Instances) {
		t.Fatalf("the engine has %d nodes and %d reservations, want %d and %d", nodes, live, len(s.Nodes), len(s.Instances))
	}
	if len(s.NodeOrder()) != len(s.Nodes) {
		t.Fatalf("%d nodes in order of %d", len(s.NodeOrder()), len(s.Nodes))
	}
}

func TestEventsKeepTheLatest(t *testing.T) {
	t.Parallel()
	var e state.Events
	for i := range 300 {
		e.Add(start.Add(time.Duration(i)), functions.InstanceID(fmt.Sprintf("ins_%d", i%2)), fmt.Sprint(i))
	}
	e.Add(start, "ins_1", "299")
	got := e.Latest("")
	if len(got) != 128 || got[0].Text != "299" || got[127].Text != "172" {
		t.Errorf("%d events, from %q to %q", len(got), got[0].Text, got[len(got)-1].Text)
	}
	if one := e.Latest("ins_0"); len(one) != 64 || one[0].Text != "298" {
		t.Errorf("of one instance: %d, first %q", len(one), one[0].Text)
	}
}

func TestReportsCountInTheirOrder(t *testing.T) {
	t.Parallel()
	s := state.New()
	s.ApplyReport(start, report("n1", "b1", 1, true))
	s.ApplyReport(start, report("n1", "b1", 2, false, instance("ins_a", functions.InstanceStarting)))
	s.ApplyReport(start, report("n1", "b1", 3, false, instance("ins_a", functions.InstanceReady)))
	s.ApplyReport(start, report("n1", "b1", 2, false, instance("ins_a", functions.InstanceStarting)))
	if got := s.Instances["ins_a"].State; got != functions.InstanceReady {
		t.Errorf("after an old report: %s", got)
	}
	s.ApplyReport(start, report("n1", "b1", 1, true))
	known(t, s, "ins_a")
}

func TestWhatTheWorkerReservedCounts(t *testing.T) {
	t.Parallel()
	s := state.New()
	s.ApplyReport(start, report("n1", "b1", 1, true))
	reserve(s, "ins_a")
	more := instance("ins_a", functions.InstanceReady)
	more.Reserved = size.Add(size)
	s.ApplyReport(start, report("n1", "b1", 2, false, more))
	if got := reserved(s, "n1"); got != more.Reserved || s.Budget(ref.Namespace).Used != more.Reserved {
		t.Errorf("reserved %s, used %s", got, s.Budget(ref.Namespace).Used)
	}
	silent := instance("ins_a", functions.InstanceReady)
	silent.Reserved = functions.Resources{}
	s.ApplyReport(start, report("n1", "b1", 3, false, silent))
	if got := reserved(s, "n1"); got != more.Reserved {
		t.Errorf("a report without it changed it to %s", got)
	}
}

func TestALostNodeComesBackWithAFullReport(t *testing.T) {
	t.Parallel()
	s := state.New()
	s.ApplyReport(start, report("n1", "b1", 1, true, instance("ins_a", functions.InstanceReady)))
	silence(s, start.Add(3*time.Second))
	c := s.ApplyReport(start.Add(7*time.Second), report("n1", "b1", 2, false))
	if n := s.Nodes["n1"]; n.Lost || n.Known || !c.ReportsWanted {
		t.Errorf("after a delta: lost %t, known %t, %+v", n.Lost, n.Known, c)
	}
	s.ApplyReport(start.Add(8*time.Second), report("n1", "b1", 3, true, instance("ins_a", functions.InstanceReady)))
	known(t, s, "ins_a")
	if !s.Nodes["n1"].Known {
		t.Error("not known after a full report")
	}
}

// Functions are gone through from the last to the first while others come and go: those that stay are all met.
func TestNoFunctionThatStaysIsMissed(t *testing.T) {
	t.Parallel()
	s := state.New()
	ref := func(i int) functions.Ref { return functions.Ref{Namespace: "default", Name: fmt.Sprintf("f%d", i)} }
	for i := range 100 {
		s.SetFunction(start, functions.Function{Namespace: "default", Name: ref(i).Name})
	}
	met := map[functions.Ref]bool{}
	for at := len(s.FunctionList()); at > 0; {
		at--
		met[s.FunctionList()[at].Ref] = true
		if at%3 == 0 {
			s.DeleteFunction(ref(at / 2))
			s.SetFunction(start, functions.Function{Namespace: "default", Name: ref(1000 + at).Name})
			s.DeleteFunction(ref(1000 + at))
		}
		at = min(at, len(s.FunctionList()))
	}
	for _, f := range s.Functions {
		if !met[f.Ref] {
			t.Errorf("%s was not met", f.Ref)
		}
	}
	if len(s.FunctionList()) != len(s.Functions) || len(s.Functions) != 66 {
		t.Errorf("%d functions are listed, of %d", len(s.FunctionList()), len(s.Functions))
	}
}
