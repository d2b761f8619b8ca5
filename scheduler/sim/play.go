package sim

import (
	"math"
	"slices"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/scheduler/keepalive"
)

// Result is what a policy made of a trace.
type Result struct {
	Invocations int `json:"invocations"`
	Cold        int `json:"cold"`
	// Ahead counts the instances that were started before anybody waited.
	Ahead int `json:"ahead"`
	// Rate is Cold as a share of the invocations; AppQ50 and AppQ75 are quantiles of the applications' own shares.
	Rate   float64 `json:"cold_rate"`
	AppQ50 float64 `json:"app_q50_cold"`
	AppQ75 float64 `json:"app_q75_cold"`
	// Waste is idle memory, in GiB hours; that of what was started ahead counts.
	Waste float64 `json:"waste_gib_h"`
	// Slowdown is the 99th percentile of time taken ÷ time run.
	Slowdown float64 `json:"p99_slowdown"`
	// MostNodes is how many nodes were used at most, Series how it went.
	MostNodes int     `json:"most_nodes,omitempty"`
	Series    []Point `json:"series,omitempty"`

	// apps are the applications' shares, in their order; below zero for one that was never called. shares are those that were, sorted.
	apps, shares []float64
}

// Point is an hour's end.
type Point struct {
	Hour int `json:"hour"`
	// Cold and Invocations are those of the hour.
	Cold        int     `json:"cold"`
	Invocations int     `json:"invocations"`
	Idle        float64 `json:"idle_gib"`
	Held        float64 `json:"held_gib"`
	Nodes       int     `json:"nodes,omitempty"`
}

// standing is where an application is in the play.
type standing struct {
	next     int
	from, to uint32
	plan     keepalive.Plan
	cold     int
	calls    int
}

const minute = 60_000

// began is when the virtual clock begins.
var began = time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC)

// Play plays the site's trace under the policy. With a fleet it places every instance on its nodes too, once a minute.
func Play(s *Site, p Policy, f *Fleet) *Result {
	g := &game{site: s, policy: p, apps: make([]standing, len(s.needs))}
	for end := uint32(minute); ; end += minute {
		end = min(end, s.length)
		var idle, held int64
		for i := range g.apps {
			a := &g.apps[i]
			for a.next < len(s.needs[i]) && s.needs[i][a.next].from < end {
				g.need(i, a)
			}
			busy, warm := a.at(end)
			if warm && !busy {
				idle += s.memory[i]
			}
			if warm || busy {
				held += s.memory[i]
			}
			if f != nil {
				f.set(i, s.memory[i], warm || busy)
			}
		}
		p.Minute(began.Add(ms(end)), idle)
		if end%(60*minute) == 0 || end == s.length {
			g.hour(end, idle, held, f)
		}
		if end == s.length {
			return g.end(f)
		}
	}
}

// at tells whether the application runs something at an instant, and whether it has an instance all the same.
func (a *standing) at(now uint32) (busy, warm bool) {
	if a.next == 0 {
		return false, false
	}
	if now < a.to {
		return true, false
	}
	return false, a.plan.Warm(ms(now - a.to))
}

type game struct {
	site   *Site
	policy Policy
	apps   []standing
	out    Result
	// before are the counts at the last hour's end.
	before Result
	waste  float64
	slow   []float64
}

// need plays the application's next need.
func (g *game) need(app int, a *standing) {
	n := g.site.needs[app][a.next]
	cold := true
	if a.next > 0 {
		idle := ms(n.from - a.to)
		cold = !a.plan.Warm(idle)
		g.idled(app, a, n.from)
		g.policy.Observe(app, idle, ms(n.from-a.from))
	}
	if cold {
		a.cold++
		g.out.Cold++
		g.slow = append(g.slow, 1+float64(StartTime.Milliseconds())/float64(max(n.run, 1)))
	}
	a.calls += int(n.calls)
	g.out.Invocations += int(n.calls)
	a.from, a.to = n.from, n.to
	a.next++
	a.plan = g.policy.Plan(app, ms(n.to-n.from))
}

// idled counts what the application's idle time until an instant took.
func (g *game) idled(app int, a *standing, until uint32) {
	idle := ms(until - a.to)
	g.waste += float64(g.site.memory[app]) * float64(a.plan.Idle(idle).Milliseconds())
	if a.plan.Until > a.plan.From && idle > a.plan.From {
		g.out.Ahead++
	}
}

func (g *game) hour(end uint32, idle, held int64, f *Fleet) {
	p := Point{
		Hour: int(math.Ceil(float64(end) / (60 * minute))), Cold: g.out.Cold - g.before.Cold, Invocations: g.out.Invocations - g.before.Invocations,
		Idle: float64(idle) / float64(functions.GiB), Held: float64(held) / float64(functions.GiB),
	}
	if f != nil {
		p.Nodes = f.used()
	}
	g.before.Cold, g.before.Invocations = g.out.Cold, g.out.Invocations
	g.out.Series = append(g.out.Series, p)
}

func (g *game) end(f *Fleet) *Result {
	r := &g.out
	for i := range g.apps {
		a := &g.apps[i]
		if a.next > 0 && a.to < g.site.length {
			g.idled(i, a, g.site.length)
		}
	}
	r.conclude(len(g.apps), func(i int) (cold, calls int) { return g.apps[i].cold, g.apps[i].calls }, g.waste, g.slow)
	if f != nil {
		r.MostNodes = f.most
	}
	return r
}

// conclude works out what follows from the counts: those of each application, the idle memory in bytes times milliseconds, and how much longer the calls
// took that waited.
func (r *Result) conclude(apps int, of func(app int) (cold, calls int), waste float64, slow []float64) {
	for i := range apps {
		share := -1.0
		if cold, calls := of(i); calls > 0 {
			share = float64(cold) / float64(calls)
			r.shares = append(r.shares, share)
		}
		r.apps = append(r.apps, share)
	}
	slices.Sort(r.shares)
	slices.Sort(slow)
	r.Waste = waste / gibHour
	r.Rate = float64(r.Cold) / float64(max(r.Invocations, 1))
	r.AppQ50, r.AppQ75 = quantile(r.shares, 0.50), quantile(r.shares, 0.75)
	r.Slowdown = 1
	if beyond := r.Invocations / 100; len(slow) > beyond {
		r.Slowdown = slow[len(slow)-beyond-1]
	}
}

// Beside returns the shares of the applications that have fewer cold starts than in another result of the same trace, and more.
func (r *Result) Beside(o *Result) (fewer, more float64) {
	each := 1 / float64(max(len(r.shares), 1))
	for i, share := range r.apps {
		switch {
		case share < o.apps[i]:
			fewer += each
		case share > o.apps[i]:
			more += each
		}
	}
	return fewer, more
}

func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

func ms(n uint32) time.Duration { return time.Duration(n) * time.Millisecond }

// AtWaste finds the memory budget with which the scheduler's policy wastes as much as asked, to a share of within, and returns what it
// makes of the trace. It returns the nearest of sixteen tries.
func AtWaste(s *Site, waste, within float64) (*Result, int64) {
	hours := ms(s.length).Hours()
	low, high := 0.0, math.Inf(1)
	budget := waste / hours
	var best *Result
	var found float64
	for range 16 {
		r := Play(s, Auto(s, int64(budget*float64(functions.GiB))), nil)
		if best == nil || math.Abs(r.Waste-waste) < math.Abs(best.Waste-waste) {
			best, found = r, budget
		}
		if math.Abs(r.Waste/waste-1) <= within {
			break
		}
		if r.Waste > waste {
			high = min(high, budget)
		} else {
			low = max(low, budget)
		}
		if budget *= waste / r.Waste; budget <= low || budget >= high {
			budget = (low + min(high, 4*max(low, 1))) / 2
		}
	}
	return best, int64(found * float64(functions.GiB))
}
