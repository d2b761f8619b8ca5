package main

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"time"
)

// offered is an open loop at one rate, and what its rounds gave.
type offered struct {
	rate   float64
	length time.Duration

	// away is how much of the processors the workers' own process took.
	p50, p99, over, late, cpu, held, drawn, away []float64
	together                                     []time.Duration
	// collected counts the rounds in which the garbage collector ran.
	collected int
}

// offers are the plan's open loops: at its rate, and at double of that, for as long as the functions last.
func (p controlPlan) offers() []*offered {
	double := &offered{rate: 2 * p.rate}
	// The times are drawn: a few more than the mean must not make the round shorter.
	double.length = min(p.length, time.Duration(0.9*float64(p.functions)/double.rate*float64(time.Second)))
	return []*offered{{rate: p.rate, length: p.length}, double}
}

// round runs the loop once, on workers without instances.
func (f *offered) round(ctx context.Context, w *controlWorld) error {
	if err := w.settle(ctx); err != nil {
		return err
	}
	// Whether a collection falls into a round would be chance: each begins behind one.
	runtime.GC()
	o, err := w.openLoop(ctx, f.rate, f.length)
	if err != nil {
		return err
	}
	f.note(&o)
	fmt.Printf("control: open loop at %.0f/s: held %.0f/s, added p50 %.2f ms, p99 %.2f ms, p99.9 %.2f ms (over %s: p99 %.2f ms), %.0f µs of CPU a cold start%s, %d collections, idle timers late by p50 %.2f ms, p99 %.2f ms; %s\n",
		f.rate, o.held(), millis(at(o.added, 0.5)), millis(at(o.added, 0.99)), millis(at(o.added, 0.999)), sandboxTime, o.over(0.99), o.cpuEach(), o.awayEach(), o.collections,
		millis(at(o.late, 0.5)), millis(at(o.late, 0.99)), o.besides())
	fmt.Printf("control: of that, each by itself, p50 and p99: until called %s, until the scheduler knew %s, until the worker did %s, the sandbox over its time %s, until answered %s\n",
		o.step(0), o.step(1), o.step(2), o.step(3), o.step(4))
	return nil
}

func (f *offered) note(o *outcome) {
	f.p50, f.p99, f.cpu = append(f.p50, millis(at(o.added, 0.5))), append(f.p99, millis(at(o.added, 0.99))), append(f.cpu, o.cpuEach())
	f.late, f.over = append(f.late, millis(at(o.late, 0.99))), append(f.over, o.over(0.99))
	f.held, f.drawn = append(f.held, o.held()), append(f.drawn, o.drawn)
	f.away = append(f.away, o.away.Seconds()/o.wall.Seconds())
	f.together = append(f.together, o.added...)
	if o.collections > 0 {
		f.collected++
	}
}

// tell prints the medians.
func (f *offered) tell() {
	slices.Sort(f.together)
	fmt.Printf("control: at %.0f/s of all rounds together added p99 %.2f ms; the garbage collector ran in %d of %d\n", f.rate, millis(at(f.together, 0.99)), f.collected, len(f.p99))
	fmt.Printf("control: at %.0f/s medians: held %.0f/s of the %.0f drawn, added p50 %.2f ms, p99 %.2f ms (over %s: p99 %.2f ms), where timers that do nothing are late by %.2f ms, and %.0f µs of CPU a cold start\n",
		f.rate, median(f.held), median(f.drawn), median(f.p50), median(f.p99), sandboxTime, median(f.over), median(f.late), median(f.cpu))
}

// figures are the loop's. The suffix ends their names.
func (f *offered) figures(suffix string) []figure {
	samples := len(f.together)
	return []figure{
		beside("scheduler", "control_plane_held_per_s"+suffix, "1/s", median(f.held), "offered", median(f.drawn), samples),
		{Bench: "scheduler", Metric: "control_plane_added_p99_ms" + suffix, Value: median(f.p99), Unit: "ms", samples: samples},
	}
}
