package scheduler

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"pgregory.net/rapid"
)

const (
	worldNodes     = 3
	worldFunctions = 4
)

// TestRandomWorlds plays random events: whatever happens, no node and no quota is exceeded, nothing is started where it must not be, and
// once the trouble is over everybody who waits gets an instance or a reason.
func TestRandomWorlds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t)
		quota := functions.Quota{Namespace: "default", Memory: rapid.Int64Range(0, 3).Draw(rt, "quota") * functions.GiB, Instances: rapid.Int64Range(0, 12).Draw(rt, "instances")}
		w.do(w.core.SetQuota(w.now, quota))
		for i := range worldNodes {
			w.addNode(functions.NodeID(fmt.Sprintf("nod_%d", i)), rapid.Int64Range(256, 1500).Draw(rt, "memory"))
		}
		w.do(w.core.Synced(w.now))
		w.pass(500 * time.Millisecond)
		for range rapid.IntRange(5, 60).Draw(rt, "steps") {
			w.out.Reset()
			w.random(rt)
			w.check(rt, quota)
		}
		w.heal()
		w.check(rt, quota)
		w.settled(rt)
	})
}

func (w *world) addNode(id functions.NodeID, mib int64) {
	n := &worldNode{id: id, boot: 1, insts: map[functions.InstanceID]*bus.InstanceReport{}}
	n.state = bus.NodeState{Name: string(id), Architecture: "amd64", Allocatable: functions.Resources{CPU: 2000, Memory: mib * functions.MiB, Instances: 8}}
	w.nodes[id] = n
	w.full(n)
}

func fnRef(i int) functions.Ref {
	return functions.Ref{Namespace: functions.DefaultNamespace, Name: fmt.Sprintf("f%d", i)}
}

func (w *world) random(t *rapid.T) {
	n := w.nodes[functions.NodeID(fmt.Sprintf("nod_%d", rapid.IntRange(0, worldNodes-1).Draw(t, "node")))]
	ref := fnRef(rapid.IntRange(0, worldFunctions-1).Draw(t, "function"))
	switch rapid.IntRange(0, 13).Draw(t, "event") {
	case 0, 1:
		w.put(t, ref)
	case 2:
		delete(w.fns, ref)
		w.do(w.core.DeleteFunction(w.now, ref))
	case 3, 4, 5:
		w.state(t)
	case 6:
		n.silent = !n.silent
	case 7:
		if !n.silent {
			n.state.Draining = !n.state.Draining
			w.full(n)
		}
	case 8:
		n.boot++
		n.seq, n.silent, n.state.Draining = 0, false, false
		clear(n.insts)
		w.full(n)
	case 9:
		w.deaf = rapid.IntRange(0, 2).Draw(t, "deaf") == 0
	case 10:
		w.held = rapid.IntRange(0, 2).Draw(t, "held") == 0
	case 11:
		w.pass(time.Duration(rapid.IntRange(1, 80).Draw(t, "tenths")) * 100 * time.Millisecond)
	default:
		w.happen(t, n)
	}
}

// put deploys, or moves the traffic to, one of a function's revisions.
func (w *world) put(t *rapid.T, ref functions.Ref) {
	id := functions.RevisionID(fmt.Sprintf("%s-r%d", ref.Name, rapid.IntRange(0, 2).Draw(t, "revision")))
	rev, known := w.revs[id]
	if !known {
		rev = functions.Revision{Schema: 1, ID: id, Namespace: ref.Namespace, Function: ref.Name, State: functions.RevisionPending}
		rev.Artifact = functions.Artifact{Digest: string(id), Architecture: "amd64"}
		rev.Config.Limits = functions.Limits{CPU: rapid.Int64Range(50, 900).Draw(t, "cpu"), Memory: rapid.Int64Range(16, 700).Draw(t, "mem") * functions.MiB, Ephemeral: functions.MiB}
		rev.Config.Concurrency = rapid.IntRange(1, 10).Draw(t, "concurrency")
		lo := rapid.SampledFrom([]int{0, 0, 0, 1, 2}).Draw(t, "min")
		rev.Config.Scale = functions.Scale{Min: lo, Max: rapid.IntRange(max(lo, 1), 10).Draw(t, "max"), KeepAlive: functions.Duration(rapid.IntRange(1, 20).Draw(t, "keep")) * functions.Duration(time.Second)}
	}
	fn, known := w.fns[ref]
	if !known {
		fn = functions.Function{Schema: 1, Namespace: ref.Namespace, Name: ref.Name}
	}
	if rev.State == functions.RevisionReady && rapid.Bool().Draw(t, "rollback") {
		fn.Previous, fn.Live, fn.Candidate = fn.Live, id, ""
	} else {
		fn.Candidate = id
		if rev.State == functions.RevisionFailed {
			rev.State = functions.RevisionPending
		}
	}
	w.revs[id], w.fns[ref] = rev, fn
	if rapid.Bool().Draw(t, "function first") {
		w.do(w.core.SetFunction(w.now, fn))
		w.do(w.core.SetRevision(w.now, rev))
		return
	}
	w.do(w.core.SetRevision(w.now, rev))
	w.do(w.core.SetFunction(w.now, fn))
}

func (w *world) state(t *rapid.T) {
	w.demandSeq++
	m := bus.Demand{Envelope: bus.Envelope{Boot: "g", Sequence: w.demandSeq}, Gateway: "g1"}
	for i := range worldFunctions {
		if rapid.Bool().Draw(t, "named") {
			ref := fnRef(i)
			fd := bus.FunctionDemand{Namespace: ref.Namespace, Function: ref.Name, Waiting: rapid.IntRange(0, 20).Draw(t, "waiting"), Backlog: rapid.IntRange(0, 20).Draw(t, "backlog"), InFlight: rapid.IntRange(0, 20).Draw(t, "inFlight")}
			fd.Concurrency = float64(fd.Waiting + fd.InFlight)
			m.Functions = append(m.Functions, fd)
		}
	}
	w.do(w.core.Demand(w.now, m))
}

// happen changes an instance of the node the way instances change.
func (w *world) happen(t *rapid.T, n *worldNode) {
	if n.silent || len(n.insts) == 0 {
		return
	}
	in := n.insts[rapid.SampledFrom(slices.Sorted(maps.Keys(n.insts))).Draw(t, "instance")]
	switch rapid.IntRange(0, 5).Draw(t, "change") {
	case 0:
		w.end(n, in, functions.InstanceFailed, "exited with code 1", &functions.Exit{Code: 1})
	case 1:
		w.end(n, in, functions.InstanceFailed, "not ready", nil)
	case 2:
		if in.State == functions.InstanceReady {
			in.Held = rapid.IntRange(0, 3).Draw(t, "held")
			w.delta(n, *in)
		}
	default:
		if in.State == functions.InstanceStarting {
			in.State, in.Since = functions.InstanceReady, w.now
			w.delta(n, *in)
		}
	}
}

func (w *world) check(t *rapid.T, quota functions.Quota) {
	st := w.core.State()
	for id, n := range st.Nodes {
		w.nodes[id].lost = w.nodes[id].lost || n.Lost
		if reserved := st.Reserved(n); !reserved.Fits(n.Allocatable) {
			t.Fatalf("%s has %s reserved of %s", id, reserved, n.Allocatable)
		}
		var real functions.Resources
		for _, in := range w.nodes[id].insts {
			real = real.Add(in.Reserved)
		}
		if !real.Fits(n.Allocatable) {
			t.Fatalf("%s runs %s of %s\n%s", id, real, n.Allocatable, w.out.String())
		}
	}
	// Instances of a node that was lost and came back were counted while they were not known.
	used := st.Budget("default").Used
	if bound := quota.Exceeded(used, functions.Resources{}); bound != "" && !w.wasLost() {
		t.Fatalf("quota %s is exceeded: %s\n%s", bound, used, w.out.String())
	}
	for _, f := range st.Functions {
		waiting, _, _ := f.Level()
		if f.Record == nil || waiting == 0 || f.Revision(f.Record.Live) == nil {
			continue
		}
		active, _ := f.Count(f.Record.Live, func(id functions.NodeID) bool { n := st.Nodes[id]; return n == nil || n.Lost || n.Draining })
		if active == 0 && f.Pending == "" {
			t.Fatalf("%s: %d wait, nothing starts, and no reason is given\n%s", f.Ref, waiting, w.out.String())
		}
	}
}

func (w *world) wasLost() bool {
	for _, n := range w.nodes {
		if n.lost {
			return true
		}
	}
	return false
}

// heal ends all trouble and lets the world settle with one waiter for every function.
func (w *world) heal() {
	w.deaf, w.held = false, false
	for _, id := range slices.Sorted(maps.Keys(w.nodes)) {
		n := w.nodes[id]
		n.silent, n.state.Draining = false, false
		w.full(n)
	}
	for range 90 {
		w.demandSeq++
		m := bus.Demand{Envelope: bus.Envelope{Boot: "g", Sequence: w.demandSeq}, Gateway: "g1"}
		for i := range worldFunctions {
			ref := fnRef(i)
			m.Functions = append(m.Functions, bus.FunctionDemand{Namespace: ref.Namespace, Function: ref.Name, Waiting: 1, Concurrency: 1})
		}
		w.do(w.core.Demand(w.now, m))
		for _, id := range slices.Sorted(maps.Keys(w.nodes)) {
			n := w.nodes[id]
			for _, iid := range slices.Sorted(maps.Keys(n.insts)) {
				in := n.insts[iid]
				switch {
				case in == nil: // stopped by what happened before
				case in.State == functions.InstanceStarting:
					in.State, in.Since = functions.InstanceReady, w.now
					w.delta(n, *in)
				case in.State == functions.InstanceDraining:
					w.end(n, in, functions.InstanceStopped, "drained", nil)
				default:
					in.Held = 0
				}
			}
		}
		w.pass(time.Second)
	}
}

func (w *world) settled(t *rapid.T) {
	st := w.core.State()
	for _, f := range st.Functions {
		if f.Record == nil {
			if len(f.Instances) > 0 {
				t.Fatalf("%s is deleted and has %d instances", f.Ref, len(f.Instances))
			}
			continue
		}
		if f.Record.Candidate != "" {
			t.Fatalf("%s still has candidate %s: %s", f.Ref, f.Record.Candidate, f.Pending)
		}
		for _, in := range f.Instances {
			if in.Revision != f.Record.Live {
				t.Fatalf("%s of %s is %s, live is %s", in.Instance, in.Revision, in.State, f.Record.Live)
			}
		}
		if _, ready := f.Count(f.Record.Live, func(functions.NodeID) bool { return false }); f.Record.Live != "" && ready == 0 && f.Pending == "" {
			t.Fatalf("%s has nothing ready and no reason why", f.Ref)
		}
	}
}
