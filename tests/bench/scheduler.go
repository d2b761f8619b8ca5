package main

import (
	"flag"
	"fmt"
	"os"
	"time"
)

// schedulerMain runs the scheduler's benches, which need neither root nor containers.
func schedulerMain(args []string) int {
	flags := flag.NewFlagSet("bench scheduler", flag.ContinueOnError)
	out := flags.String("out", "out/bench.jsonl", "file to append a JSON line a figure to")
	flags.IntVar(&rounds, "rounds", rounds, "rounds; a figure of fewer than 5 is a trial")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	rounds = max(rounds, 1)
	begun := time.Now()
	all := append(benchDecisions(), benchPacking()...)
	if err := writeFigures(*out, all); err != nil {
		fmt.Fprintf(os.Stderr, "bench: failed: %v\n", err)
		return 1
	}
	printFigures(all)
	fmt.Printf("bench: %d figures in %s, appended to %s\n", len(all), time.Since(begun).Round(time.Second), *out)
	return 0
}

// How many decisions a contender takes a round.
const (
	decisionsIndexed = 200_000
	decisionsScan    = 5_120
)

// benchDecisions measures decisions a second of CPU time, ends included, at three sizes, the contenders and sizes taking turns.
func benchDecisions() []figure {
	sizes := []int{100, 1000, 10_000}
	fmt.Printf("scheduler: %d instances of %d functions, quotas on, nodes of 18 sizes in 3 zones, 5 %% draining: filling…\n", liveInstances, manyKinds)
	var index, scan, two []*contender
	for _, n := range sizes {
		i, s, t := speedContenders(n, 10)
		index, scan, two = append(index, i), append(scan, s), append(two, t)
	}
	for range rounds {
		for k := range sizes {
			index[k].round(decisionsIndexed)
			scan[k].round(decisionsScan)
			two[k].round(decisionsIndexed)
		}
	}
	var all []figure
	allocs := 0.0
	for k, n := range sizes {
		metric := fmt.Sprintf("decisions_per_s_n%d", n)
		rate := median(index[k].rates)
		all = append(all,
			beside("scheduler", metric, "1/s", rate, "linear-scan", median(scan[k].rates), rounds),
			beside("scheduler", metric, "1/s", rate, "two-sample", median(two[k].rates), rounds))
		fmt.Printf("scheduler: %d nodes: %d live at load %.2f, %.3f µs of CPU a decision, p99 %.2f µs, %d refused\n",
			n, len(index[k].fleet.live), index[k].fleet.load(), 1e6/rate, median(index[k].slow), index[k].refused)
		allocs = max(allocs, median(index[k].allocs))
	}
	fmt.Printf("scheduler: flatness: a decision at 10000 nodes takes %.2f times that at 100\n", median(index[0].rates)/median(index[2].rates))
	slow := median(index[2].slow)
	return append(all,
		beside("scheduler", "decision_p99_us_n10000", "µs", slow, "linear-scan", median(scan[2].slow), rounds*decisionsIndexed),
		beside("scheduler", "decision_p99_us_n10000", "µs", slow, "two-sample", median(two[2].slow), rounds*decisionsIndexed),
		figure{Bench: "scheduler", Metric: "allocs_per_op", Value: allocs, Unit: "allocs", samples: rounds * decisionsIndexed})
}

// packed is what one policy makes of a mix: open nodes beside the lower bound, after compaction too, and the share rejected at a high load.
type packed struct{ open, bound, compact, compactBound, rejected []float64 }

const (
	packLoad  = 0.70
	highLoad  = 0.97
	turnovers = 10
	// keeps is how many artifacts a node of the mixes keeps.
	keeps = 64
)

// benchPacking measures how tightly nodes are packed, with one seed a round.
func benchPacking() []figure {
	var all []figure
	for _, m := range []mix{mixA, mixB} {
		fmt.Printf("scheduler: packing mix %s: %d nodes at %.0f %% load, %d turnovers, seeds 0 to %d…\n", m.name, m.nodes, 100*packLoad, turnovers, rounds-1)
		var index, scan, two packed
		for seed := range uint64(rounds) {
			index.engine(m, seed)
			scan.flat(m, seed, 0)
			two.flat(m, seed, 2)
		}
		metric := "open_nodes_mix_" + m.name
		open := func(metric string, value, bound []float64) {
			v := median(value)
			all = append(all,
				beside("scheduler", metric, "nodes", v, "lower-bound", median(bound), rounds),
				beside("scheduler", metric, "nodes", v, "linear-scan", median(scan.open), rounds),
				beside("scheduler", metric, "nodes", v, "two-sample", median(two.open), rounds))
		}
		open(metric, index.open, index.bound)
		fmt.Printf("scheduler: mix %s: open ÷ lower bound: index %.3f, linear scan %.3f, two samples %.3f\n", m.name,
			median(ratios(index.open, index.bound)), median(ratios(scan.open, scan.bound)), median(ratios(two.open, two.bound)))
		if m.name == mixA.name {
			open(metric+"_defrag", index.compact, index.compactBound)
			fmt.Printf("scheduler: mix a: open ÷ lower bound after compaction: %.3f\n", median(ratios(index.compact, index.compactBound)))
			continue
		}
		rejected := median(index.rejected)
		fmt.Printf("scheduler: mix b: rejected at %.0f %% load: index %.4f, linear scan %.4f, two samples %.4f\n", 100*highLoad,
			rejected, median(scan.rejected), median(two.rejected))
		all = append(all,
			beside("scheduler", "rejected_97_mix_b", "share", rejected, "linear-scan", median(scan.rejected), rounds),
			beside("scheduler", "rejected_97_mix_b", "share", rejected, "two-sample", median(two.rejected), rounds))
	}
	return all
}

func ratios(a, b []float64) []float64 {
	out := make([]float64, len(a))
	for i := range a {
		out[i] = a[i] / b[i]
	}
	return out
}

func (p *packed) engine(m mix, seed uint64) {
	f := newMixFleet(m, seed)
	x := newIndexed(f, keeps)
	f.churn(x, packLoad, turnovers)
	p.open, p.bound = append(p.open, float64(x.open(f))), append(p.bound, float64(f.lowerBound()))
	x.compact(f)
	p.compact, p.compactBound = append(p.compact, float64(x.open(f))), append(p.compactBound, float64(f.lowerBound()))
	f = newMixFleet(m, seed)
	p.rejected = append(p.rejected, f.churn(newIndexed(f, keeps), highLoad, turnovers))
}

func (p *packed) flat(m mix, seed uint64, samples int) {
	f := newMixFleet(m, seed)
	a := newFlat(f, samples, seed)
	f.churn(a, packLoad, turnovers)
	p.open, p.bound = append(p.open, float64(a.open())), append(p.bound, float64(f.lowerBound()))
	f = newMixFleet(m, seed)
	p.rejected = append(p.rejected, f.churn(newFlat(f, samples, seed), highLoad, turnovers))
}

// compact gives back the nodes that can be emptied, and carries the plan out.
func (x *indexed) compact(f *fleet) {
	for {
		plan := x.engine.Compact(len(f.nodes), nil)
		if len(plan.Freed) == 0 {
			return
		}
		for _, m := range plan.Moves {
			if !x.engine.Move(m.Reservation, m.To) {
				panic(fmt.Sprintf("a planned move does not fit: %+v", m))
			}
		}
	}
}
