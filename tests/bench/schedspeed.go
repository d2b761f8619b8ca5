package main

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/scheduler/placement"
	"golang.org/x/sys/unix"
)

const (
	liveInstances = 100_000
	manyKinds     = 10_000
	manyTeams     = 100
)

func namespaceOf(i int) string { return fmt.Sprintf("team-%03d", i%manyTeams) }
func digestOf(i int) string    { return fmt.Sprintf("sha256:%064x", i) }

// newSpeedFleet has n nodes of 18 sizes in three zones, a twentieth of them draining, and functions of such sizes that liveInstances of them
// take 70 % of the nodes.
func newSpeedFleet(n int) *fleet {
	rng := rand.New(rand.NewPCG(uint64(n), 3))
	f := &fleet{rng: rng}
	for i := range n {
		cpu := []int64{8, 16, 32, 48, 64, 96}[rng.IntN(6)] * 1000
		memory := cpu / 1000 * []int64{2, 4, 8}[rng.IntN(3)] * functions.GiB
		f.addNode(&placement.Node{
			Architecture: "amd64", Zone: []string{"a", "b", "c"}[i%3], Draining: i%20 == 19,
			Allocatable: functions.Resources{CPU: cpu, Memory: memory, Instances: cpu / 8},
		})
	}
	cpu, memory := f.capacity.CPU*7/10/liveInstances, f.capacity.Memory*5/10/liveInstances
	var sum int64
	for i := range manyKinds {
		c, m := 1+cpu*(1+rng.Int64N(40))/20, 1+memory*(1+rng.Int64N(40))/20
		sum += c
		f.kinds = append(f.kinds, kind{namespaceOf(i), digestOf(i), functions.Resources{CPU: c, Memory: m, Instances: 1}})
	}
	return f
}

// quotas give each namespace a fifth more than its share of what will run.
func (f *fleet) quotas() []functions.Quota {
	sums := map[string]functions.Resources{}
	for i := range f.kinds {
		sums[f.kinds[i].namespace] = sums[f.kinds[i].namespace].Add(f.kinds[i].size)
	}
	var out []functions.Quota
	for _, name := range slices.Sorted(maps.Keys(sums)) {
		s := sums[name]
		const each = liveInstances / manyKinds
		out = append(out, functions.Quota{Namespace: name, CPU: s.CPU * each * 6 / 5, Memory: s.Memory * each * 6 / 5, Instances: liveInstances / manyTeams * 6 / 5})
	}
	return out
}

// contender is a policy with a fleet of its own.
type contender struct {
	fleet  *fleet
	policy policy
	// rates and slow are a value a round: decisions a second, and the 99th percentile of a decision in µs.
	rates, slow []float64
	// allocs are the allocations a decision, a value a piece of a round: what else there is in the process allocates now and then.
	allocs  []float64
	refused int
}

// speedContenders fills the same fleet by the index, turns it over, and gives the baselines a copy of the outcome.
func speedContenders(n, turnovers int) (index, scan, two *contender) {
	f := newSpeedFleet(n)
	x := newIndexed(f, 64+2*liveInstances/n)
	for _, q := range f.quotas() {
		x.engine.SetQuota(q)
	}
	for len(f.live) < liveInstances && f.place(x) {
	}
	for range turnovers * len(f.live) {
		f.end(x)
		f.place(x)
	}
	x.still = true
	index = &contender{fleet: f, policy: x}
	copyTo := func(samples int) *contender {
		g := newSpeedFleet(n)
		a := newFlat(g, samples, uint64(n))
		at := map[placement.NodeRef]int{}
		for i, node := range g.nodes {
			at[x.engine.Ref(node.ID)] = i
		}
		for _, q := range f.quotas() {
			a.quotas[q.Namespace] = &placement.Budget{Namespace: q.Namespace, Quota: q}
		}
		for _, in := range f.live {
			ref, _ := x.engine.Held(in.reservation)
			in.node = at[ref]
			a.take(in.node, &g.kinds[in.kind], 1)
			g.live = append(g.live, in)
			g.demand = g.demand.Add(g.kinds[in.kind].size)
		}
		return &contender{fleet: g, policy: a}
	}
	return index, copyTo(0), copyTo(2)
}

// pieces is how many parts a round is measured in.
const pieces = 10

// batch is how many ends and placements are drawn ahead of those that are timed.
const batch = 256

// turn ends and places count instances, one of each in turn, and returns the CPU time that took.
func (c *contender) turn(count int) time.Duration {
	f := c.fleet
	var took time.Duration
	var ends, begins [batch]instance
	for range count / batch {
		for i := range batch {
			ends[i], begins[i] = f.draw(), instance{kind: f.pick()}
		}
		begun := cpuTime()
		for i := range batch {
			c.policy.end(&f.kinds[ends[i].kind], ends[i])
			var ok bool
			if begins[i], ok = c.policy.place(&f.kinds[begins[i].kind], begins[i]); !ok {
				begins[i].kind = -1
			}
		}
		took += cpuTime() - begun
		for i := range batch {
			f.demand = f.demand.Sub(f.kinds[ends[i].kind].size)
			if begins[i].kind < 0 {
				c.refused++
				continue
			}
			f.add(begins[i])
		}
	}
	return took
}

// round measures the rate, and then the slowest hundredth, of about count decisions.
func (c *contender) round(count int) {
	f := c.fleet
	piece := max(count/pieces/batch, 1) * batch
	count = pieces * piece
	runtime.GC()
	var took time.Duration
	for range pieces {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		took += c.turn(piece)
		runtime.ReadMemStats(&after)
		c.allocs = append(c.allocs, float64(after.Mallocs-before.Mallocs)/float64(piece))
	}
	c.rates = append(c.rates, float64(count)/took.Seconds())
	c.refill()
	slow := make([]float64, count)
	for i := range count {
		f.end(c.policy)
		begun := time.Now()
		f.place(c.policy)
		slow[i] = float64(time.Since(begun).Nanoseconds()) / 1000
	}
	slices.Sort(slow)
	c.slow = append(c.slow, quantile(slow, 0.99))
	c.refill()
}

func (c *contender) refill() {
	for len(c.fleet.live) < liveInstances && c.fleet.place(c.policy) {
	}
}

// cpuTime is the time that this process has used a CPU for.
func cpuTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
		panic(err)
	}
	return time.Duration(t.Nano())
}
