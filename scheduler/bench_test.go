package scheduler

import (
	"fmt"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/scheduler/reconcile"
)

// benchWorld has some nodes and many functions, each with a live revision and no instance.
func benchWorld(b *testing.B, nodes, fns int) *reconcile.Reconciler {
	ids := 0
	core := reconcile.New(reconcile.Config{}, func() functions.InstanceID { ids++; return functions.InstanceID(fmt.Sprint("ins_", ids)) })
	now := epoch
	for i := range fns {
		ref := functions.Ref{Namespace: "default", Name: fmt.Sprintf("f%d", i)}
		core.SetFunction(now, functions.Function{Namespace: ref.Namespace, Name: ref.Name, Live: "r"})
		core.SetRevision(now, functions.Revision{ID: "r", Namespace: ref.Namespace, Function: ref.Name, State: functions.RevisionReady})
	}
	core.Synced(now)
	for i := range nodes {
		core.Report(now, bus.Report{
			Envelope: bus.Envelope{Boot: "b", Node: functions.NodeID(fmt.Sprint("nod_", i)), Sequence: 1}, Full: true,
			State: bus.NodeState{Name: fmt.Sprint(i), Allocatable: functions.Resources{CPU: 1 << 40, Memory: 1 << 60, Instances: 1 << 40}},
		})
	}
	core.Tick(now.Add(time.Second))
	if core.Busy() {
		b.Fatal("not settled")
	}
	return core
}

// BenchmarkColdDemand is a decision from zero: a demand message in, a start command out.
func BenchmarkColdDemand(b *testing.B) {
	for _, nodes := range []int{1, 100} {
		b.Run(fmt.Sprintf("n%d", nodes), func(b *testing.B) {
			const fns = 1000
			core := benchWorld(b, nodes, fns)
			now, seq := epoch.Add(2*time.Second), uint64(0)
			b.ReportAllocs()
			for b.Loop() {
				ref := functions.Ref{Namespace: "default", Name: fmt.Sprintf("f%d", seq%fns)}
				seq++
				d := bus.Demand{Envelope: bus.Envelope{Boot: "b", Sequence: seq}, Gateway: "g", Functions: []bus.FunctionDemand{{Namespace: ref.Namespace, Function: ref.Name, Waiting: 1}}}
				effects := core.Demand(now, d)
				if len(effects) != 1 {
					b.Fatalf("%d effects", len(effects))
				}
				id := effects[0].Command.Instance
				core.State().Remove(id)
			}
		})
	}
}

// BenchmarkTick is a look at everything when nothing is to be done.
func BenchmarkTick(b *testing.B) {
	core := benchWorld(b, 10, 1000)
	now := epoch.Add(time.Minute)
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(time.Second)
		core.Excuse(now)
		core.Tick(now)
	}
}

// BenchmarkFullReport is the heartbeat of a node with many instances of one function.
func BenchmarkFullReport(b *testing.B) {
	core := benchWorld(b, 1, 1)
	rep := bus.Report{
		Envelope: bus.Envelope{Boot: "b", Node: "nod_0"}, Full: true,
		State: bus.NodeState{Allocatable: functions.Resources{CPU: 1 << 40, Memory: 1 << 60, Instances: 1 << 40}},
	}
	for i := range 1000 {
		rep.Instances = append(rep.Instances, bus.InstanceReport{Instance: functions.InstanceID(fmt.Sprint("ins_", i)), Namespace: "default", Function: "f0", Revision: "r", State: functions.InstanceReady, Since: epoch})
	}
	now, seq := epoch.Add(2*time.Second), uint64(1)
	b.ReportAllocs()
	for b.Loop() {
		seq++
		rep.Sequence = seq
		core.Report(now, rep)
	}
}
