package sim

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/tatami-faas/tatami/functions"
)

// day is in milliseconds.
const day = 86_400_000

// Generate makes a trace of so many applications from the published shapes. The same seed makes the same trace, and more applications
// leave the first ones as they are.
func Generate(seed uint64, apps int, length time.Duration) *Trace {
	t := &Trace{Length: length}
	for i := range apps {
		g := generator{rand.New(rand.NewPCG(seed, uint64(i))), float64(length.Milliseconds())}
		t.Apps = append(t.Apps, g.app(fmt.Sprintf("app-%05d", i)))
	}
	return t
}

type generator struct {
	*rand.Rand
	// end is in milliseconds.
	end float64
}

func (g generator) app(name string) App {
	app := App{Name: name, Memory: g.memory()}
	rate := g.rate()
	n := g.functions()
	timer := g.Float64() < timerApps
	share := make([]float64, n)
	sum := 0.0
	for k := range share {
		share[k] = g.ExpFloat64()
		sum += share[k]
	}
	for k := range n {
		run := g.duration()
		begun := len(app.Calls)
		app.Calls = g.calls(app.Calls, rate*share[k]/sum, timer && (k == 0 || g.Float64() < timerFunctions))
		for i := begun; i < len(app.Calls); i++ {
			app.Calls[i].Run = run
		}
	}
	if n > 1 {
		sortCalls(app.Calls)
	}
	return app
}

// calls appends a function's calls.
func (g generator) calls(out []Call, daily float64, timer bool) []Call {
	switch {
	case timer:
		return g.timer(out, daily)
	case g.Float64() < regular:
		return g.regular(out, daily)
	default:
		return g.bursts(out, daily)
	}
}

func (g generator) timer(out []Call, daily float64) []Call {
	minutes := timerPeriods[0]
	off := func(p float64) float64 { return math.Abs(math.Log(p * daily / 1440)) }
	for _, p := range timerPeriods {
		if off(p) < off(minutes) {
			minutes = p
		}
	}
	step := minutes * 60_000
	for at := math.Floor(g.Float64() * step); at < g.end; at += step {
		out = append(out, Call{At: uint32(at)})
	}
	return out
}

func (g generator) regular(out []Call, daily float64) []Call {
	phase := g.Float64() * day
	gap := day / (daily * (1 + swing))
	for at := g.ExpFloat64() * gap; at < g.end; at += g.ExpFloat64() * gap {
		if g.Float64()*(1+swing) < 1+swing*math.Sin(2*math.Pi*(at+phase)/day) {
			out = append(out, Call{At: uint32(at)})
		}
	}
	return out
}

func (g generator) bursts(out []Call, daily float64) []Call {
	mean := day / daily
	// A trace does not begin with a burst: the first gap is under way.
	for at := -g.Float64() * longGap * mean; at < g.end; {
		if at >= 0 {
			out = append(out, Call{At: uint32(at)})
		}
		gap := shortGap
		if g.Float64() >= briefly {
			gap = longGap
		}
		at += g.ExpFloat64() * gap * mean
	}
	return out
}

func (g generator) rate() float64 {
	u := g.Float64()
	a := dailyCalls[0]
	for _, b := range dailyCalls[1:] {
		if u <= b.share {
			return a.daily * math.Pow(b.daily/a.daily, (u-a.share)/(b.share-a.share))
		}
		a = b
	}
	return a.daily
}

func (g generator) functions() int {
	u := g.Float64()
	for _, f := range functionsPerApp {
		if u -= f.share; u < 0 {
			return f.from + g.IntN(f.to-f.from+1)
		}
	}
	return 1
}

func (g generator) duration() uint32 {
	ms := 1000 * math.Exp(durationMu+durationSigma*g.NormFloat64())
	return uint32(min(max(ms, 1), longestRun))
}

func (g generator) memory() int64 {
	mb := memoryScale * math.Pow(math.Pow(1-g.Float64(), -1/memoryK)-1, 1/memoryC)
	return int64(min(mb, mostMemory) * float64(functions.MiB))
}
