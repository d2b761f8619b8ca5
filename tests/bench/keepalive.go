package main

import (
	"flag"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/tatami-faas/tatami/scheduler/sim"
)

// The trace of the keep-alive bench. The policy's constants were chosen on the first seed only.
const (
	keepApps = 2000
	keepDays = 7
	// equalWaste is by how much two wastes may differ and count as equal.
	equalWaste = 0.02
)

var keepSeeds = []uint64{1, 2, 3}

func keepaliveMain(args []string) int {
	flags := flag.NewFlagSet("bench keepalive", flag.ContinueOnError)
	out := flags.String("out", "out/bench.jsonl", "file to append a JSON line a figure to")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	begun := time.Now()
	all, err := benchKeepalive()
	if err == nil {
		err = writeFigures(*out, all)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: failed: %v\n", err)
		return 1
	}
	printFigures(all)
	fmt.Printf("bench: %d figures in %s, appended to %s\n", len(all), time.Since(begun).Round(time.Second), *out)
	return 0
}

// kept is what the policies make of one seed.
type kept struct {
	fixed, hybrid, clairvoyant, auto *sim.Result
	// window is the fixed window that wastes as much as the hybrid, atHybrid the scheduler's policy at that waste.
	window, atHybrid *sim.Result
	minutes          float64
}

func benchKeepalive() ([]figure, error) {
	var runs []kept
	for _, seed := range keepSeeds {
		begun := time.Now()
		k := playSeed(seed)
		runs = append(runs, k)
		k.print(seed, time.Since(begun))
		if off := k.auto.Waste/k.fixed.Waste - 1; off > equalWaste || off < -equalWaste {
			return nil, fmt.Errorf("seed %d: the wastes differ by %.1f %%", seed, 100*off)
		}
	}
	return keepFigures(runs), nil
}

func playSeed(seed uint64) kept {
	t := sim.Generate(seed, keepApps, keepDays*24*time.Hour)
	fmt.Printf("keepalive: seed %d: %d applications, %d days, %d invocations\n", seed, keepApps, keepDays, t.Invocations())
	s := sim.NewSite(t)
	k := kept{fixed: sim.Play(s, sim.Fixed(10*time.Minute), nil)}
	var both sync.WaitGroup
	both.Go(func() { k.auto, _ = sim.AtWaste(s, k.fixed.Waste, equalWaste/2) })
	both.Go(func() {
		k.clairvoyant = sim.Play(s, sim.Clairvoyant(s, k.fixed.Waste), nil)
		k.hybrid = sim.Play(s, sim.Hybrid(s, 4*time.Hour), nil)
		k.window, k.minutes = windowAt(s, k.hybrid.Waste)
	})
	both.Wait()
	k.atHybrid, _ = sim.AtWaste(s, k.hybrid.Waste, equalWaste/2)
	return k
}

// windowAt finds the fixed window that wastes so much, and its minutes.
func windowAt(s *sim.Site, waste float64) (*sim.Result, float64) {
	low, high := 0.5, 24*60.0
	var r *sim.Result
	mid := low
	for range 12 {
		mid = (low + high) / 2
		r = sim.Play(s, sim.Fixed(time.Duration(mid*float64(time.Minute))), nil)
		switch {
		case r.Waste > waste*(1+equalWaste/2):
			high = mid
		case r.Waste < waste*(1-equalWaste/2):
			low = mid
		default:
			return r, mid
		}
	}
	return r, mid
}

func (k *kept) print(seed uint64, took time.Duration) {
	row := func(name string, r *sim.Result) {
		fmt.Printf("keepalive: seed %d: %-34s cold %7.4f %% (%.2fx)  app q50 %5.1f %%  q75 %5.1f %%  waste %.3fx  ahead %d\n", seed, name,
			100*r.Rate, r.Rate/k.fixed.Rate, 100*r.AppQ50, 100*r.AppQ75, r.Waste/k.fixed.Waste, r.Ahead)
	}
	row("fixed 10 min", k.fixed)
	row("clairvoyant, nothing ahead", k.clairvoyant)
	row("auto at that waste", k.auto)
	row("hybrid 4 h", k.hybrid)
	row(fmt.Sprintf("fixed %.0f min, hybrid's waste", k.minutes), k.window)
	row("auto at hybrid's waste", k.atHybrid)
	better, worse := k.auto.Beside(k.fixed)
	fmt.Printf("keepalive: seed %d: of the applications %.1f %% have fewer cold starts with auto than with fixed 10 min, %.1f %% have more; took %s\n",
		seed, 100*better, 100*worse, took.Round(time.Second))
}

func keepFigures(runs []kept) []figure {
	of := func(get func(k *kept) float64) float64 {
		var v []float64
		for i := range runs {
			v = append(v, get(&runs[i]))
		}
		return median(v)
	}
	var all []figure
	for _, m := range []struct {
		name, unit string
		get        func(r *sim.Result) float64
	}{
		{"cold_rate", "share", func(r *sim.Result) float64 { return r.Rate }},
		{"app_q75_cold", "share", func(r *sim.Result) float64 { return r.AppQ75 }},
		{"waste", "GiB h", func(r *sim.Result) float64 { return r.Waste }},
	} {
		value := of(func(k *kept) float64 { return m.get(k.auto) })
		all = append(all,
			beside("keepalive", m.name, m.unit, value, "fixed-10min", of(func(k *kept) float64 { return m.get(k.fixed) }), len(runs)),
			beside("keepalive", m.name, m.unit, value, "hybrid-4h", of(func(k *kept) float64 { return m.get(k.hybrid) }), len(runs)),
			beside("keepalive", m.name, m.unit, value, "clairvoyant", of(func(k *kept) float64 { return m.get(k.clairvoyant) }), len(runs)))
	}
	return all
}
