package reconcile_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/scheduler/reconcile"
	"pgregory.net/rapid"
)

const (
	// soon is how long an instance is idle that may go where nothing else makes room, settled one that goes before such.
	soon    = 250 * time.Millisecond
	settled = 2 * time.Second
)

// tenant is a function of a full site.
type tenant struct {
	functions.Ref
	size  functions.Resources
	keeps int
}

// Whatever runs where, what is stopped for another function is idle and beyond what its function keeps, it suffices, and none of it goes needlessly;
// and something is stopped wherever the idle instances of one node suffice.
func TestReclaimKeepsTheRules(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
		ids := 0
		core := reconcile.New(reconcile.Config{}, func() functions.InstanceID { ids++; return functions.InstanceID(fmt.Sprint("ins_new", ids)) })
		tenants := map[string]*tenant{}
		for i := range rapid.IntRange(1, 4).Draw(t, "functions") {
			f := &tenant{
				Ref:   functions.Ref{Namespace: "default", Name: fmt.Sprintf("f%d", i)},
				size:  functions.Resources{CPU: 100 * rapid.Int64Range(1, 6).Draw(t, "cpu"), Memory: 100 * functions.MiB * rapid.Int64Range(1, 6).Draw(t, "mem"), Instances: 1},
				keeps: rapid.IntRange(0, 2).Draw(t, "min"),
			}
			tenants[f.Name] = f
			deployed(core, now, f.Ref, f.size, f.keeps)
		}
		core.Synced(now)
		nodes := rapid.IntRange(1, 3).Draw(t, "nodes")
		on := map[functions.InstanceID]int{}
		list := make([][]bus.InstanceReport, nodes)
		free := make([]functions.Resources, nodes)
		all := functions.Resources{CPU: 1500, Memory: 1500 * functions.MiB, Instances: 20}
		for n := range nodes {
			free[n] = all
			for k := range rapid.IntRange(0, 8).Draw(t, "instances") {
				f := tenants[fmt.Sprintf("f%d", rapid.IntRange(0, len(tenants)-1).Draw(t, "of"))]
				if !f.size.Fits(free[n]) {
					continue
				}
				free[n] = free[n].Sub(f.size)
				in := bus.InstanceReport{
					Instance: functions.InstanceID(fmt.Sprintf("ins_%d_%d", n, k)), Namespace: f.Namespace, Function: f.Name, Revision: "r", State: functions.InstanceReady,
					Since: now.Add(-time.Minute), LastUsed: now.Add(time.Second - time.Duration(rapid.IntRange(0, 24).Draw(t, "idle"))*soon/2), Slots: 1, Reserved: f.size,
				}
				in.Held = rapid.IntRange(0, 1).Draw(t, "held")
				on[in.Instance] = n
				list[n] = append(list[n], in)
			}
		}
		for n := range nodes {
			core.Report(now, bus.Report{Envelope: bus.Envelope{Boot: "b", Node: functions.NodeID(fmt.Sprint("nod_", n)), Sequence: 1}, Full: true, State: bus.NodeState{Allocatable: all}, Instances: list[n]})
		}
		core.Tick(now.Add(time.Second))
		now = now.Add(time.Second)
		want := functions.Ref{Namespace: "default", Name: "wants"}
		need := functions.Resources{CPU: 100 * rapid.Int64Range(1, 14).Draw(t, "need cpu"), Memory: 100 * functions.MiB * rapid.Int64Range(1, 14).Draw(t, "need mem"), Instances: 1}
		fits := false
		for _, n := range core.State().NodeOrder() {
			fits = fits || need.Fits(core.State().Free(n))
		}
		deployed(core, now, want, need, 0)
		before := map[string]int{}
		for name, f := range tenants {
			before[name] = active(core, f.Ref)
		}
		effects := core.Demand(now, bus.Demand{Envelope: bus.Envelope{Boot: "g", Sequence: 1}, Gateway: "g", Functions: []bus.FunctionDemand{{Namespace: want.Namespace, Function: want.Name, Waiting: 1}}})
		// fresh says that something is stopped that was used of late.
		at, fresh, stopped := -1, false, map[functions.InstanceID]functions.Resources{}
		for _, e := range effects {
			c := e.Command
			if e.Kind != reconcile.Send || c.Action != bus.ActionStop || !strings.Contains(c.Reason, "needed by") {
				continue
			}
			f := tenants[e.Ref.Name]
			in := core.State().Instances[c.Instance]
			if in.Held > 0 || now.Sub(in.LastUsed) < soon || c.Quiet.Std() != soon {
				t.Fatalf("%s is in use, or was just now: %+v", c.Instance, c)
			}
			fresh = fresh || now.Sub(in.LastUsed) < settled
			if left := active(core, f.Ref); left < min(f.keeps, before[f.Name]) {
				t.Fatalf("%s keeps %d, and has %d of %d left", f.Ref, f.keeps, left, before[f.Name])
			}
			if n := on[c.Instance]; at >= 0 && n != at {
				t.Fatalf("room is made on nodes %d and %d", at, n)
			}
			at = on[c.Instance]
			stopped[c.Instance] = f.size
		}
		// idleFor is the node that would have room without what has been idle for so long.
		idleFor := func(least time.Duration) int {
			for n, reports := range list {
				room, left := core.State().Free(core.State().Nodes[functions.NodeID(fmt.Sprint("nod_", n))]), map[string]int{}
				if n == at {
					room = room.Add(need)
				}
				for _, in := range reports {
					f := tenants[in.Function]
					is := core.State().Instances[in.Instance]
					if _, goes := stopped[in.Instance]; is != nil && (is.Active() || goes) && is.Held == 0 && now.Sub(is.LastUsed) >= least && left[f.Name] < before[f.Name]-f.keeps {
						left[f.Name]++
						room = room.Add(f.size)
					}
				}
				if need.Fits(room) {
					return n
				}
			}
			return -1
		}
		if at >= 0 {
			if n := idleFor(settled); fresh && n >= 0 {
				t.Fatalf("%v stopped, though what has been idle for long on node %d suffices", stopped, n)
			}
			node := core.State().Nodes[functions.NodeID(fmt.Sprint("nod_", at))]
			// What is kept for the function does not count as free; what is leaving will be.
			room := core.State().Free(node).Add(need)
			for _, in := range node.Instances {
				if in.Leaving() {
					room = room.Add(in.Reserved)
				}
			}
			if fits || !need.Fits(room) {
				t.Fatalf("%v stopped, room %s, needed %s", stopped, room, need)
			}
			for id, size := range stopped {
				if need.Fits(room.Sub(size)) {
					t.Fatalf("%s goes needlessly", id)
				}
			}
			return
		}
		if fits || strings.Contains(core.State().Functions[want].Pending, "room is being made") {
			return
		}
		// Nothing was stopped: no node could have been made to fit.
		if n := idleFor(soon); n >= 0 {
			t.Fatalf("node %d has or could have %s: %s", n, need, core.State().Functions[want].Pending)
		}
	})
}

// active counts the function's instances that were not told to leave.
func active(core *reconcile.Reconciler, ref functions.Ref) int {
	n := 0
	for _, in := range core.State().Functions[ref].Instances {
		if in.Active() {
			n++
		}
	}
	return n
}

// deployed hands in a function with a live revision.
func deployed(core *reconcile.Reconciler, now time.Time, ref functions.Ref, size functions.Resources, least int) {
	rev := functions.Revision{ID: "r", Namespace: ref.Namespace, Function: ref.Name, State: functions.RevisionReady}
	rev.Config = functions.Config{Limits: functions.Limits{CPU: size.CPU, Memory: size.Memory - functions.MiB, Ephemeral: functions.MiB}, Concurrency: 1, Scale: functions.Scale{Min: least, Max: 50, KeepAlive: functions.Duration(time.Hour)}}
	core.SetRevision(now, rev)
	core.SetFunction(now, functions.Function{Namespace: ref.Namespace, Name: ref.Name, Live: "r"})
}
