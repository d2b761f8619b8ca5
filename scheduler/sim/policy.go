package sim

import (
	"math"
	"slices"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/scheduler/keepalive"
)

// Policy decides for how long applications are kept. It is asked in the order of time, to a minute.
type Policy interface {
	// Plan is asked when a need ends that lasted for busy.
	Plan(app int, busy time.Duration) keepalive.Plan
	// Observe tells, when the next one begins, for how long the application was idle, and how long before the last one began.
	Observe(app int, idle, cycle time.Duration)
	// Minute tells once a minute how much memory is idle.
	Minute(now time.Time, idle int64)
}

// StartTime is how long a cold start takes.
const StartTime = 500 * time.Millisecond

// fixed keeps every instance for the same time.
type fixed struct{ keep time.Duration }

// Fixed returns the policy of a window that is the same for all.
func Fixed(keep time.Duration) Policy { return fixed{keep} }

func (p fixed) Plan(int, time.Duration) keepalive.Plan  { return keepalive.Plan{Keep: p.keep} }
func (fixed) Observe(int, time.Duration, time.Duration) {}
func (fixed) Minute(time.Time, int64)                   {}

// Ceiling is the longest that the simulated sites keep an idle instance.
const Ceiling = 24 * time.Hour

// auto is what the scheduler does: one record an application, and a price for them all.
type auto struct {
	records []keepalive.Record
	memory  []int64
	market  keepalive.Market
	budget  int64
}

// Auto returns the scheduler's policy; budget is how much memory may be idle, in bytes.
func Auto(s *Site, budget int64) Policy {
	return &auto{records: make([]keepalive.Record, len(s.memory)), memory: s.memory, budget: budget}
}

func (p *auto) Plan(app int, busy time.Duration) keepalive.Plan {
	return p.records[app].Plan(keepalive.Ask{Price: p.market.Price(), Memory: p.memory[app], Start: StartTime, Ceiling: Ceiling, Busy: busy})
}

func (p *auto) Observe(app int, idle, cycle time.Duration) { p.records[app].Observe(idle, cycle) }

func (p *auto) Minute(now time.Time, idle int64) { p.market.Adjust(now, idle, p.budget) }

// clairvoyant knows every idle time and keeps the cheapest, without starting anything ahead.
type clairvoyant struct {
	site *Site
	next []int
	// most is the dearest that is kept, in bytes times milliseconds.
	most float64
}

// Clairvoyant returns the policy that knows the future and wastes so many GiB hours; nothing that only keeps can avoid more cold starts.
func Clairvoyant(s *Site, waste float64) Policy {
	p := &clairvoyant{site: s, next: make([]int, len(s.memory))}
	var costs []float64
	for i, needs := range s.needs {
		for k := 1; k < len(needs); k++ {
			costs = append(costs, s.cost(i, needs[k-1].to, needs[k].from))
		}
	}
	slices.Sort(costs)
	left := waste * gibHour
	for _, c := range costs {
		if left -= c; left < 0 {
			break
		}
		p.most = c
	}
	return p
}

// gibHour is in bytes times milliseconds.
var gibHour = float64(functions.GiB) * float64(time.Hour.Milliseconds())

// cost is what keeping an application idle between two instants takes, in bytes times milliseconds.
func (s *Site) cost(app int, from, to uint32) float64 {
	return float64(s.memory[app]) * float64(to-from)
}

func (p *clairvoyant) Plan(app int, _ time.Duration) keepalive.Plan {
	needs, k := p.site.needs[app], p.next[app]
	p.next[app]++
	if k+1 < len(needs) && p.site.cost(app, needs[k].to, needs[k+1].from) <= p.most {
		return keepalive.Plan{Keep: math.MaxInt64}
	}
	return keepalive.Plan{}
}

func (*clairvoyant) Observe(int, time.Duration, time.Duration) {}
func (*clairvoyant) Minute(time.Time, int64)                   {}
