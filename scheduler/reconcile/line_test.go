package reconcile_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/scheduler/reconcile"
)

// market is a site whose namespaces all want more than there is, with instances that come and go.
type market struct {
	t     *testing.T
	rng   *rand.Rand
	core  *reconcile.Reconciler
	now   time.Time
	ids   int
	seq   uint64
	nodes []functions.NodeID
	size  functions.Resources
	// live are the instances as their workers know them.
	live   map[functions.InstanceID]*bus.InstanceReport
	on     map[functions.InstanceID]functions.NodeID
	specs  map[functions.Ref]functions.Resources
	wants  map[functions.Ref]bool
	starts map[functions.Ref]int
	// ends is how likely an instance ends within a step; those of lasting never do.
	ends    float64
	lasting functions.Ref
}

const step = 100 * time.Millisecond

func newMarket(t *testing.T, seed uint64, nodes int) *market {
	m := &market{
		t: t, rng: rand.New(rand.NewPCG(seed, 1)), now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), size: functions.Resources{CPU: 8000, Memory: 16 * functions.GiB, Instances: 200},
		live: map[functions.InstanceID]*bus.InstanceReport{}, on: map[functions.InstanceID]functions.NodeID{},
		specs: map[functions.Ref]functions.Resources{}, wants: map[functions.Ref]bool{}, starts: map[functions.Ref]int{}, ends: 0.05,
	}
	m.core = reconcile.New(reconcile.Config{}, func() functions.InstanceID {
		m.ids++
		return functions.InstanceID(fmt.Sprintf("ins_%06d", m.ids))
	})
	for i := range nodes {
		m.nodes = append(m.nodes, functions.NodeID(fmt.Sprintf("nod_%d", i)))
	}
	m.do(m.core.Synced(m.now))
	m.report()
	m.now = m.now.Add(time.Second)
	m.do(m.core.Tick(m.now))
	return m
}

func (m *market) function(ref functions.Ref, size functions.Resources, weight int64) {
	rev := functions.Revision{ID: functions.RevisionID("r-" + ref.Name), Namespace: ref.Namespace, Function: ref.Name, State: functions.RevisionReady}
	rev.Config = functions.Config{Limits: functions.Limits{CPU: size.CPU, Memory: size.Memory - functions.MiB, Ephemeral: functions.MiB}, Concurrency: 1, Scale: functions.Scale{Max: 1000, KeepAlive: functions.Duration(time.Minute)}}
	m.specs[ref] = size
	m.do(m.core.SetQuota(m.now, functions.Quota{Namespace: ref.Namespace, Weight: weight}))
	m.do(m.core.SetRevision(m.now, rev))
	m.do(m.core.SetFunction(m.now, functions.Function{Namespace: ref.Namespace, Name: ref.Name, Live: rev.ID}))
}

func (m *market) do(effects []reconcile.Effect) {
	for _, e := range slices.Clone(effects) {
		if e.Kind != reconcile.Send {
			continue
		}
		c := e.Command
		switch in := m.live[c.Instance]; {
		case c.Action == bus.ActionStart && in == nil:
			r := c.Revision
			m.starts[r.Ref()]++
			m.live[c.Instance] = &bus.InstanceReport{
				Instance: c.Instance, Namespace: r.Namespace, Function: r.Function, Revision: r.ID, State: functions.InstanceReady, Since: m.now, Started: m.now,
				Slots: 1, Held: 1, Reserved: r.Config.Limits.Resources(),
			}
			m.on[c.Instance] = c.Node
		case c.Action == bus.ActionDrain && in != nil:
			in.State = functions.InstanceDraining
		}
	}
}

// report has every worker say all it knows.
func (m *market) report() {
	m.seq++
	for _, n := range m.nodes {
		r := bus.Report{Envelope: bus.Envelope{Boot: "b", Node: n, Sequence: m.seq}, Full: true, State: bus.NodeState{Name: string(n), Allocatable: m.size}}
		var sum functions.Resources
		for _, id := range slices.Sorted(maps.Keys(m.live)) {
			if m.on[id] == n {
				r.Instances = append(r.Instances, *m.live[id])
				sum = sum.Add(m.live[id].Reserved)
			}
		}
		if !sum.Fits(m.size) {
			m.t.Fatalf("%s runs %s of %s", n, sum, m.size)
		}
		m.do(m.core.Report(m.now, r))
	}
}

// pass lets a step go by: some instances end, and everybody who wants says so.
func (m *market) pass() {
	m.now = m.now.Add(step)
	for _, id := range slices.Sorted(maps.Keys(m.live)) {
		if m.live[id].Ref() != m.lasting && m.rng.Float64() < m.ends {
			delete(m.live, id)
			delete(m.on, id)
		}
	}
	m.report()
	m.seq++
	d := bus.Demand{Envelope: bus.Envelope{Boot: "g", Sequence: m.seq}, Gateway: "g"}
	for _, ref := range slices.SortedFunc(maps.Keys(m.wants), func(a, b functions.Ref) int { return strings.Compare(a.String(), b.String()) }) {
		if !m.wants[ref] {
			continue
		}
		runs := 0
		for _, in := range m.live {
			if in.Ref() == ref {
				runs++
			}
		}
		d.Functions = append(d.Functions, bus.FunctionDemand{Namespace: ref.Namespace, Function: ref.Name, Waiting: 200, InFlight: runs, Concurrency: float64(200 + runs)})
	}
	m.do(m.core.Demand(m.now, d))
	m.do(m.core.Tick(m.now))
}

// share is the greater share of CPU and memory that a namespace holds.
func (m *market) share(namespace string) float64 {
	var sum functions.Resources
	for _, in := range m.live {
		if in.Namespace == namespace {
			sum = sum.Add(in.Reserved)
		}
	}
	n := int64(len(m.nodes))
	return max(float64(sum.CPU)/float64(n*m.size.CPU), float64(sum.Memory)/float64(n*m.size.Memory))
}

func refOf(namespace, name string) functions.Ref {
	return functions.Ref{Namespace: namespace, Name: name}
}

// What namespaces hold while all of them want more comes to be as their weights, whatever the sizes of their functions; each function gets something,
// and who comes late is served first, but no further than that.
func TestShortRoomIsSharedByWeight(t *testing.T) {
	t.Parallel()
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			m := newMarket(t, seed, 3)
			weights := map[string]int64{}
			var refs []functions.Ref
			for i := range 2 + m.rng.IntN(3) {
				ns := fmt.Sprintf("team%d", i)
				weights[ns] = []int64{100, 100, 200, 400}[m.rng.IntN(4)]
				for k := range 1 + m.rng.IntN(3) {
					ref := refOf(ns, fmt.Sprintf("f%d-%d", i, k))
					refs = append(refs, ref)
					m.function(ref, functions.Resources{CPU: 100 * (1 + m.rng.Int64N(5)), Memory: (1 + m.rng.Int64N(8)) * 100 * functions.MiB}, weights[ns])
				}
			}
			const late = "team0"
			early := 0.0
			sums, samples := map[string]float64{}, 0.0
			for i := range 400 {
				for _, ref := range refs {
					m.wants[ref] = ref.Namespace != late || i >= 100
				}
				m.pass()
				if i >= 100 && i < 180 {
					early += m.share(late) / 80
				}
				if i >= 180 {
					samples++
					for ns := range weights {
						sums[ns] += m.share(ns)
					}
				}
			}
			level := 0.0
			for ns, w := range weights {
				level += sums[ns] / samples / float64(w) / float64(len(weights))
			}
			if most := 1.15 * level * float64(weights[late]); early > most {
				t.Errorf("who came late holds %.2f at first, %.2f at most would be its share", early, most)
			}
			for ns, w := range weights {
				if got := sums[ns] / samples / float64(w); got < 0.85*level || got > 1.15*level {
					t.Errorf("%s of weight %d holds %.3f, %.3f would be its share", ns, w, sums[ns]/samples, level*float64(w))
				}
			}
			for _, ref := range refs {
				if m.starts[ref] == 0 {
					t.Errorf("%s got nothing", ref)
				}
			}
		})
	}
}

// What needs most of a node does not wait for ever beside small ones that take every bit that becomes free: room is kept for it.
func TestTheLargeGetTheirTurn(t *testing.T) {
	t.Parallel()
	for _, namespace := range []string{"small", "other"} {
		m := newMarket(t, 1, 4)
		small, large := refOf("small", "small"), refOf(namespace, "large")
		m.function(small, functions.Resources{CPU: 200, Memory: 100 * functions.MiB}, 100)
		m.function(large, functions.Resources{CPU: 6000, Memory: functions.GiB}, 100)
		m.wants[small] = true
		for range 50 {
			m.pass()
		}
		m.wants[large], m.lasting = true, large
		waited := 0
		for m.starts[large] < 2 && waited < 300 {
			m.pass()
			waited++
		}
		if waited == 300 {
			t.Errorf("in namespace %s: %d large ones run after %s, want 2", namespace, m.starts[large], 300*step)
		}
		if m.wants[large] = false; m.share("small") < 0.3 {
			t.Errorf("in namespace %s: the small ones are left with %.2f", namespace, m.share("small"))
		}
	}
}
