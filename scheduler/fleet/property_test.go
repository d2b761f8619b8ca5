package fleet_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/scheduler/fleet"
)

// pool is a pool with what runs on it, in virtual time. It starts workers late or not at all, and has times in which it cannot be resized.
type pool struct {
	now      time.Time
	count    int
	min, max int
	workers  []*machine
	// most is how many workers find a place, startup how long one takes to join, busy until when it cannot be resized.
	most    int
	startup time.Duration
	busy    time.Time
	// demand is what is to run, waiting what of it has no room.
	demand  []functions.Resources
	waiting []functions.Resources
	drain   functions.NodeID
	memory  fleet.Memory
	policy  fleet.Policy
}

type machine struct {
	index int
	since time.Time
	runs  []functions.Resources
}

func (m *machine) id() functions.NodeID {
	return functions.NodeID(fmt.Sprintf("%d@%s", m.index, m.since))
}

func (m *machine) reserved() (sum functions.Resources) {
	for _, r := range m.runs {
		sum = sum.Add(r)
	}
	return sum
}

func (p *pool) joined(m *machine) bool { return p.now.Sub(m.since) >= p.startup }

// settle has the pool start and stop what its count says, and places what has no room.
func (p *pool) settle() {
	for len(p.workers) > p.count {
		last := p.workers[len(p.workers)-1]
		p.waiting = append(p.waiting, last.runs...)
		p.workers = p.workers[:len(p.workers)-1]
	}
	for len(p.workers) < min(p.count, p.most) {
		p.workers = append(p.workers, &machine{index: len(p.workers), since: p.now})
	}
	for _, m := range p.workers {
		if m.id() == p.drain {
			m.runs = slices.DeleteFunc(m.runs, func(r functions.Resources) bool { return p.place(r, m) })
		}
	}
	p.waiting = slices.DeleteFunc(p.waiting, func(r functions.Resources) bool { return p.place(r, nil) })
}

func (p *pool) place(r functions.Resources, not *machine) bool {
	for _, m := range p.workers {
		if m != not && p.joined(m) && m.id() != p.drain && r.Fits(shape.Sub(m.reserved())) {
			m.runs = append(m.runs, r)
			return true
		}
	}
	return false
}

// fits reports whether what runs on a worker has room on the others.
func (p *pool) fits(m *machine) bool {
	free := map[*machine]functions.Resources{}
	for _, o := range p.workers {
		if o != m && p.joined(o) {
			free[o] = shape.Sub(o.reserved())
		}
	}
	for _, r := range m.runs {
		found := false
		for _, o := range p.workers {
			if left, open := free[o]; open && r.Fits(left) {
				free[o], found = left.Sub(r), true
				break
			}
		}
		if !found {
			return false
		}
	}
	return true
}

func (p *pool) view() fleet.View {
	v := fleet.View{Count: p.count, Min: p.min, Max: p.max}
	if p.now.Before(p.busy) {
		v.Busy = "a deployment"
	}
	for _, m := range p.workers {
		w := fleet.Worker{Index: m.index, Since: m.since}
		if p.joined(m) {
			w.Node, w.Open, w.Allocatable, w.Reserved, w.Instances, w.Fits = m.id(), true, shape, m.reserved(), len(m.runs), p.fits(m)
		}
		v.Workers = append(v.Workers, w)
	}
	for _, r := range p.waiting {
		v.Lacking = append(v.Lacking, fleet.Lack{Each: r, Count: 1})
	}
	return v
}

// require replaces what is to run. What goes, goes at once.
func (p *pool) require(demand []functions.Resources) {
	p.demand, p.waiting = demand, slices.Clone(demand)
	for _, m := range p.workers {
		m.runs = slices.DeleteFunc(m.runs, func(r functions.Resources) bool {
			i := slices.Index(p.waiting, r)
			if i < 0 {
				return true
			}
			p.waiting = slices.Delete(p.waiting, i, i+1)
			return false
		})
	}
}

// step decides once and checks what every decision keeps to.
func (p *pool) step(t *rapid.T, fell *time.Time) {
	p.now = p.now.Add(time.Second)
	p.settle()
	v := p.view()
	before := p.memory
	d := fleet.Decide(p.now, v, p.policy, before)
	p.memory = d.Memory
	last := fleet.Last(v.Workers)
	if d.Count != v.Count {
		if v.Busy != "" {
			t.Fatalf("it resizes a pool that cannot be: %s", d.Reason)
		}
		if d.Count > max(p.max, v.Count) || d.Count < min(p.min, v.Count) {
			t.Fatalf("%d is not within %d and %d: %s", d.Count, p.min, p.max, d.Reason)
		}
	}
	if d.Drain != "" && d.Drain != before.Draining {
		switch {
		case last == nil || last.Node != d.Drain:
			t.Fatalf("%s is drained and is not the last", d.Drain)
		case last.Instances > 0 && !last.Fits:
			t.Fatalf("%s is drained and its instances fit nowhere else", d.Drain)
		case len(v.Lacking) > 0:
			t.Fatalf("%s is drained while something lacks room", d.Drain)
		case p.now.Sub(*fell) < p.policy.DownAfter:
			t.Fatalf("%s is drained %s after the pool changed", d.Drain, p.now.Sub(*fell))
		}
	}
	if d.Count < v.Count && last != nil && len(v.Workers) >= v.Count && last.Instances > 0 {
		t.Fatalf("a worker is taken away with %d instances on it: %s", last.Instances, d.Reason)
	}
	p.drain = d.Drain
	if d.Count != p.count {
		p.count, *fell = d.Count, p.now
	}
}

func sizes(t *rapid.T) []functions.Resources {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) functions.Resources {
		return res(rapid.SampledFrom([]int64{50, 100, 250, 600}).Draw(t, "cpu"), rapid.SampledFrom([]int64{50, 128, 512}).Draw(t, "memory"))
	}), 0, 30).Draw(t, "demand")
}

func newPool(t *rapid.T) *pool {
	least := rapid.IntRange(0, 3).Draw(t, "min")
	p := &pool{
		now: begin, min: least, max: least + rapid.IntRange(0, 12).Draw(t, "max"), startup: time.Duration(rapid.IntRange(0, 40).Draw(t, "startup")) * time.Second,
		policy: fleet.Policy{UpAfter: 2 * time.Second, DownAfter: time.Minute, DrainFor: 2 * time.Minute, ComingFor: 90 * time.Second, Spare: 0.2},
	}
	p.count, p.most = p.min, p.max
	return p
}

// Whatever happens, the pool keeps to its bounds, is resized only when it can be, and gives up only what is empty.
func TestEveryDecisionKeepsItsPromises(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := newPool(t)
		var fell time.Time
		for range rapid.IntRange(1, 12).Draw(t, "phases") {
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0:
				p.busy = p.now.Add(time.Duration(rapid.IntRange(1, 100).Draw(t, "busy")) * time.Second)
			case 1:
				p.most = rapid.IntRange(0, p.max).Draw(t, "places")
				for len(p.workers) > p.most {
					p.waiting = append(p.waiting, p.workers[len(p.workers)-1].runs...)
					p.workers = p.workers[:len(p.workers)-1]
				}
			default:
				p.require(sizes(t))
			}
			for range rapid.IntRange(1, 300).Draw(t, "seconds") {
				p.step(t, &fell)
			}
		}
	})
}

// Demand that stays the same is answered once: in the end nothing has no room that the pool could give, and after the first worker that leaves none comes.
func TestSteadyDemandIsAnsweredOnce(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := newPool(t)
		var fell time.Time
		p.require(sizes(t))
		for range rapid.IntRange(0, 200).Draw(t, "before") {
			p.step(t, &fell)
		}
		p.require(sizes(t))
		var counts []int
		for range 2000 {
			p.step(t, &fell)
			if n := len(counts); n == 0 || counts[n-1] != p.count {
				counts = append(counts, p.count)
			}
		}
		down := false
		for i := 1; i < len(counts); i++ {
			switch up := counts[i] > counts[i-1]; {
			case up && down:
				t.Fatalf("it goes to and fro: %v", counts)
			case !up:
				down = true
			}
		}
		if len(p.waiting) > 0 && p.count < p.max {
			t.Fatalf("%d have no room, and the pool has %d of %d workers", len(p.waiting), p.count, p.max)
		}
		if p.now.Sub(fell) < 10*time.Minute && down {
			t.Fatalf("after half an hour it still changes: %v", counts)
		}
	})
}
