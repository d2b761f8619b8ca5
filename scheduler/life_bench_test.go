package scheduler

import (
	"container/heap"
	"fmt"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/scheduler/reconcile"
	"golang.org/x/sys/unix"
)

// benchEvent is something that happens at a time.
type benchEvent struct {
	at time.Time
	do func()
}

type benchEvents []benchEvent

func (e benchEvents) Len() int           { return len(e) }
func (e benchEvents) Less(i, j int) bool { return e[i].at.Before(e[j].at) }
func (e benchEvents) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *benchEvents) Push(v any)        { *e = append(*e, v.(benchEvent)) }
func (e *benchEvents) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

// lives are functions each of which is called once, gets an instance, and loses it after its keep-alive, as the messages of gateway and workers tell.
type lives struct {
	core      *reconcile.Reconciler
	now       time.Time
	events    benchEvents
	demands   uint64
	sequence  map[functions.NodeID]uint64
	tick      time.Time
	fail      func(string, ...any)
	commanded int
}

func (l *lives) at(d time.Duration, do func()) { heap.Push(&l.events, benchEvent{l.now.Add(d), do}) }

func (l *lives) demand(ref functions.Ref, d bus.FunctionDemand) {
	l.demands++
	d.Namespace, d.Function = ref.Namespace, ref.Name
	l.heed(l.core.Demand(l.now, bus.Demand{
		Envelope: bus.Envelope{Boot: "b", Sequence: l.demands}, Gateway: "g", Partial: true, Functions: []bus.FunctionDemand{d},
	}))
}

func (l *lives) report(node functions.NodeID, in bus.InstanceReport) {
	l.sequence[node]++
	l.heed(l.core.Report(l.now, bus.Report{
		Envelope: bus.Envelope{Boot: "b", Node: node, Sequence: l.sequence[node]}, State: benchNode(string(node)), Instances: []bus.InstanceReport{in},
	}))
}

func benchNode(name string) bus.NodeState {
	return bus.NodeState{Name: name, ArtifactsKept: true, Allocatable: functions.Resources{CPU: 64_000, Memory: 256 * functions.GiB, Instances: 1024}}
}

// heed does what is asked for.
func (l *lives) heed(effects []reconcile.Effect) {
	for i := range effects {
		c, ref := effects[i].Command, effects[i].Ref
		if effects[i].Kind != reconcile.Send {
			l.fail("an effect of kind %d", effects[i].Kind)
		}
		in := bus.InstanceReport{
			Instance: c.Instance, Namespace: ref.Namespace, Function: ref.Name, Revision: effects[i].Revision,
			State: functions.InstanceReady, Slots: 1, Since: l.now.Add(41 * time.Millisecond), LastUsed: l.now.Add(41 * time.Millisecond),
		}
		switch c.Action {
		case bus.ActionStart:
			l.commanded++
			l.at(41*time.Millisecond, func() { l.report(c.Node, in) })
			l.at(42*time.Millisecond, func() {
				l.demand(ref, bus.FunctionDemand{Concurrency: 1, Quiet: functions.Duration(time.Millisecond)})
			})
		case bus.ActionStop:
			in.State = functions.InstanceStopped
			l.at(5*time.Millisecond, func() { l.report(c.Node, in) })
		}
	}
}

// until has all happen that happens up to a time.
func (l *lives) until(end time.Time) {
	for {
		next, own := l.tick, false
		if due := l.core.Next(); !due.IsZero() && due.Before(next) {
			next = due
		}
		if len(l.events) > 0 && l.events[0].at.Before(next) {
			next, own = l.events[0].at, true
		}
		if next.After(end) {
			l.now = end
			return
		}
		if next.After(l.now) {
			l.now = next
		}
		switch {
		case own:
			heap.Pop(&l.events).(benchEvent).do()
		case next.Equal(l.tick):
			l.tick = l.tick.Add(100 * time.Millisecond)
			l.heed(l.core.Tick(l.now))
		default:
			l.heed(l.core.Due(l.now))
		}
	}
}

// BenchmarkLife is all that an instance's life costs the scheduler, where 2,500 a second start on 1,000 nodes, each of a function of its own.
func BenchmarkLife(b *testing.B) {
	const nodes, fns = 1000, 12_000
	ids := 0
	l := &lives{
		core: reconcile.New(reconcile.Config{}, func() functions.InstanceID { ids++; return functions.InstanceID(fmt.Sprintf("ins_%026d", ids)) }),
		now:  epoch, sequence: map[functions.NodeID]uint64{}, fail: b.Fatalf,
	}
	refs := make([]functions.Ref, fns)
	for i := range refs {
		refs[i] = functions.Ref{Namespace: fmt.Sprintf("team-%d", i%16), Name: fmt.Sprintf("fn-%05d", i)}
		l.core.SetFunction(l.now, functions.Function{Namespace: refs[i].Namespace, Name: refs[i].Name, Live: "rev_abcdef"})
		l.core.SetRevision(l.now, functions.Revision{
			ID: "rev_abcdef", Namespace: refs[i].Namespace, Function: refs[i].Name, State: functions.RevisionReady,
			Config: functions.Config{Scale: functions.Scale{KeepAlive: functions.Duration(2 * time.Second)}},
		})
	}
	l.core.Synced(l.now)
	for i := range nodes {
		id := functions.NodeID(fmt.Sprintf("nod_%026d", i))
		l.sequence[id] = 1
		l.core.Report(l.now, bus.Report{Envelope: bus.Envelope{Boot: "b", Node: id, Sequence: 1}, Full: true, State: bus.NodeState{
			Name: string(id), Allocatable: benchNode("").Allocatable,
		}})
	}
	l.tick = l.now.Add(time.Second)
	l.until(l.tick)
	i, used := 0, cpuTime(b)
	b.ReportAllocs()
	for b.Loop() {
		l.demand(refs[i%fns], bus.FunctionDemand{Waiting: 1})
		i++
		l.until(l.now.Add(400 * time.Microsecond))
	}
	b.ReportMetric(float64(cpuTime(b)-used)/float64(i), "ns-cpu/op")
	if l.commanded < i {
		b.Fatalf("%d of %d were started", l.commanded, i)
	}
}

// cpuTime is what the process took of processors.
func cpuTime(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
