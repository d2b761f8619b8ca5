package sim

import (
	"math"
	"time"

	"github.com/tatami-faas/tatami/scheduler/keepalive"
)

// hybrid is the policy of "Serverless in the Wild": a histogram of idle times in minutes, whose head says when to start ahead and whose
// tail until when to keep, with margins. Where most idle times are beyond its range, the mean stands in for the paper's time series model;
// where the histogram says little, instances are kept for the whole range.
type hybrid struct {
	minutes int
	apps    []hybridApp
}

type hybridApp struct {
	count  []uint32
	n, out uint32
	// squares sums the squares of the counts, sum the idle times beyond the range in minutes.
	squares, sum float64
	plan         keepalive.Plan
	at           uint32
}

// The paper's parameters.
const (
	hybridHead, hybridTail = 0.05, 0.99
	hybridMargin           = 0.10
	hybridSeriesMargin     = 0.15
	hybridVariation        = 2
	hybridOutside          = 0.5
)

// Hybrid returns the paper's policy with a histogram of the range.
func Hybrid(s *Site, histogram time.Duration) Policy {
	p := &hybrid{minutes: int(histogram / time.Minute), apps: make([]hybridApp, len(s.memory))}
	return p
}

func (p *hybrid) Observe(app int, idle, _ time.Duration) {
	a := &p.apps[app]
	if a.count == nil {
		a.count = make([]uint32, p.minutes)
	}
	m := int(idle / time.Minute)
	if m >= p.minutes {
		a.out++
		a.sum += idle.Minutes()
		return
	}
	a.squares += 2*float64(a.count[m]) + 1
	a.count[m]++
	a.n++
}

func (p *hybrid) Plan(app int, _ time.Duration) keepalive.Plan {
	a := &p.apps[app]
	// The percentiles of many idle times hardly move with one more.
	if all := a.n + a.out; all == 0 || all > a.at+a.at/64 {
		a.at, a.plan = all, p.draw(a)
	}
	return a.plan
}

func (p *hybrid) draw(a *hybridApp) keepalive.Plan {
	if all := float64(a.n + a.out); all > 1 && float64(a.out) > hybridOutside*all {
		mean := a.sum / float64(a.out)
		return keepalive.Plan{From: minutes(mean * (1 - hybridSeriesMargin)), Until: minutes(mean * (1 + hybridSeriesMargin))}
	}
	bins, n := float64(p.minutes), float64(a.n)
	mean := n / bins
	if a.n < 2 || math.Sqrt(max(a.squares/bins-mean*mean, 0))/mean < hybridVariation {
		return keepalive.Plan{Keep: minutes(bins)}
	}
	head, tail, seen := -1, 0, 0.0
	for m, c := range a.count {
		seen += float64(c)
		if head < 0 && seen >= hybridHead*n {
			head = m
		}
		if tail = m + 1; seen >= hybridTail*n {
			break
		}
	}
	from, until := math.Floor(float64(head)*(1-hybridMargin)), float64(tail)*(1+hybridMargin)
	if from < 1 {
		return keepalive.Plan{Keep: minutes(until)}
	}
	return keepalive.Plan{From: minutes(from), Until: minutes(until)}
}

func (*hybrid) Minute(time.Time, int64) {}

func minutes(m float64) time.Duration { return time.Duration(m * float64(time.Minute)) }
