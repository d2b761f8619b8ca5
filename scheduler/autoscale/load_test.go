package autoscale_test

import (
	"fmt"
	"math"
	"time"

	"github.com/tatami-faas/tatami/scheduler/autoscale"
	"pgregory.net/rapid"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// load plays a function whose instances come as decided and go as decided, one second a step. Its gateways share the load.
type load struct {
	now      time.Time
	scale    autoscale.Scale
	sig      autoscale.Signals
	hist     autoscale.History
	gateways int
	level    int
}

func newLoad(s autoscale.Scale) *load {
	l := &load{now: start, scale: s, gateways: 1}
	l.sig.History = &l.hist
	return l
}

// step holds the concurrency for a second and decides at its end.
func (l *load) step(concurrency int) autoscale.Decision {
	l.pass(time.Second, concurrency)
	return l.decide()
}

// pass holds the concurrency for a time, at the end of which every gateway states its share of it, the first what is left over.
func (l *load) pass(d time.Duration, concurrency int) {
	if l.level != concurrency || l.now.Equal(start) {
		l.state(l.level, concurrency)
	}
	l.now = l.now.Add(d)
	l.state(concurrency, concurrency)
	l.sig.InFlight, l.sig.Waiting = concurrency, 0
	if slots := l.sig.Ready * l.scale.Concurrency; concurrency > slots {
		l.sig.Waiting, l.sig.InFlight = concurrency-slots, slots
	}
	if concurrency > 0 {
		l.sig.LastDemand = l.now
	}
}

func (l *load) state(before, level int) {
	for g := range l.gateways {
		share := func(n int) float64 {
			if g == 0 {
				return float64(n - n/l.gateways*(l.gateways-1))
			}
			return float64(n / l.gateways)
		}
		l.hist.State(fmt.Sprint("g", g), l.now, share(before), share(level))
	}
	l.level = level
}

func (l *load) decide() autoscale.Decision {
	l.hist.Keep(l.scale.Stable())
	d := autoscale.Decide(l.now, l.sig, l.scale)
	l.sig.Memory = d.Memory
	return d
}

func (l *load) apply(d autoscale.Decision) { l.sig.Ready, l.sig.Current = d.Desired, d.Desired }

// play holds the concurrency for some seconds, applying each decision; it returns the last one and how often the number changed.
func (l *load) play(seconds, concurrency int) (last autoscale.Decision, changes int) {
	for range seconds {
		before := l.sig.Current
		last = l.step(concurrency)
		if l.apply(last); last.Desired != before {
			changes++
		}
	}
	return last, changes
}

var anyScale = rapid.Custom(func(t *rapid.T) autoscale.Scale {
	lo := rapid.IntRange(0, 5).Draw(t, "min")
	hi := rapid.IntRange(max(lo, 1), 300).Draw(t, "max")
	s := autoscale.Scale{
		Min: lo, Max: hi, Concurrency: rapid.IntRange(1, 100).Draw(t, "concurrency"),
		KeepAlive: time.Duration(rapid.IntRange(1, 600).Draw(t, "keepAlive")) * time.Second,
	}
	if rapid.Bool().Draw(t, "tuned") {
		s.Initial = rapid.IntRange(0, hi).Draw(t, "initial")
		s.Reserved = rapid.IntRange(0, min(hi, 5)).Draw(t, "reserved")
		s.Burst = rapid.IntRange(0, 200).Draw(t, "burst")
		s.Utilization = float64(rapid.IntRange(1, 100).Draw(t, "utilization")) / 100
		s.Window = time.Duration(rapid.IntRange(6, 300).Draw(t, "window")) * time.Second
		s.DownDelay = time.Duration(rapid.IntRange(0, 120).Draw(t, "downDelay")) * time.Second
		s.UpRate = rapid.SampledFrom([]float64{0, 1.5, 2, 10}).Draw(t, "upRate")
		s.DownRate = rapid.SampledFrom([]float64{0, 1.1, 2, 4}).Draw(t, "downRate")
	}
	return s
})

func anyLevel(t *rapid.T) int {
	return rapid.SampledFrom([]int{0, 0, 1, 3, 10, 50, 400}).Draw(t, "level")
}

// target is what one instance should carry.
func target(s autoscale.Scale) float64 {
	if s.Utilization == 0 {
		return float64(s.Concurrency) * autoscale.Utilization
	}
	return float64(s.Concurrency) * s.Utilization
}

func ceil(v float64) int { return int(math.Ceil(v - 1e-9)) }
