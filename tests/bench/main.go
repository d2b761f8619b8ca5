// Command bench measures Tatami beside its baselines in one run, and prints each figure as a ratio.
//
// Every figure is the median of five rounds in which the contenders take turns, so that what else the machine does meets all of them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// rounds is how often the contenders take turns.
var rounds = 5

// overloadFor is how long the overload lasts.
var overloadFor = time.Minute

// flatFunctions is how many functions are deployed for the second measurement of the warm path.
var flatFunctions = 1000

func main() {
	if len(os.Args) > 1 && os.Args[1] == "load" {
		os.Exit(loadMain(os.Args[2:]))
	}
	if len(os.Args) > 1 && os.Args[1] == "openload" {
		os.Exit(openLoadMain(os.Args[2:]))
	}
	if len(os.Args) > 1 && os.Args[1] == "scheduler" {
		os.Exit(schedulerMain(os.Args[2:]))
	}
	if len(os.Args) > 1 && os.Args[1] == "keepalive" {
		os.Exit(keepaliveMain(os.Args[2:]))
	}
	if len(os.Args) > 1 && os.Args[1] == "flood" {
		os.Exit(floodMain(os.Args[2:]))
	}
	if len(os.Args) > 1 && os.Args[1] == awayVerb {
		os.Exit(awayMain(os.Args[2:]))
	}
	if len(os.Args) > 1 && os.Args[1] == idlerVerb {
		os.Exit(idlerMain(os.Args[2:]))
	}
	if len(os.Args) > 1 && os.Args[1] == farHopVerb {
		os.Exit(farHopMain(os.Args[2:]))
	}
	if len(os.Args) > 1 && os.Args[1] == "control" {
		os.Exit(controlMain(os.Args[2:]))
	}
	binary := flag.String("tatami", "bin/tatami", "the binary to measure")
	out := flag.String("out", "out/bench.jsonl", "file to append a JSON line a figure to")
	flag.IntVar(&rounds, "rounds", rounds, "rounds; a figure of fewer than 5 is a trial")
	flag.IntVar(&coldFleet, "fleet", coldFleet, "functions deployed for bursts of cold starts and the open loop")
	flag.DurationVar(&sustainTime, "sustain", sustainTime, "how long the open loop of cold starts lasts")
	flag.DurationVar(&overloadFor, "overload", overloadFor, "how long the overload lasts")
	flag.IntVar(&flatFunctions, "functions", flatFunctions, "functions deployed for the second measurement of the warm path; 0: none")
	only := flag.String("only", "", "benches to run, with commas: warm, cold (or a part of it: cold.spaced, cold.many, cold.activation, cold.egress, cold.interpreters), frozen, queue, noisy, overload, cluster (or a part of it: cluster.growth, cluster.packing, cluster.hop) (default all)")
	flag.BoolFunc("trial", "the least of everything, to see that it runs: no figure of it counts", func(string) error { shorten(); return nil })
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if rounds < 1 {
		rounds = 1
	}
	if err := run(ctx, *binary, *out, *only); err != nil {
		fmt.Fprintf(os.Stderr, "bench: failed: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, binary, out, only string) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("the figures come from real containers, which need root")
	}
	begun := time.Now()
	all, failed := measure(ctx, binary, only)
	if err := writeFigures(out, all); err != nil {
		return errors.Join(failed, err)
	}
	printFigures(all)
	fmt.Printf("bench: %d figures in %s, appended to %s\n", len(all), time.Since(begun).Round(time.Second), out)
	return failed
}

// measure runs the benches chosen and returns the figures of all that ended
// well: one that fails takes nothing from the others.
func measure(ctx context.Context, binary, only string) (all []figure, failed error) {
	for _, b := range []struct {
		// name is the bench's, or the bench's and the part's.
		name string
		run  func(context.Context, string) ([]figure, error)
	}{{"queue", benchQueue}, {"warm", benchWarm}, {"cold.spaced", coldSpaced}, {"cold.many", coldMany}, {"cold.activation", benchActivation}, {"cold.egress", coldEgress}, {"cold.interpreters", benchInterpreters}, {"frozen", benchFrozen}, {"noisy", benchNoisy}, {"overload", benchOverload}, {"cluster.growth", clusterGrowth}, {"cluster.packing", clusterPacking}, {"cluster.hop", clusterHop}} {
		whole, _, _ := strings.Cut(b.name, ".")
		if chosen := strings.Split(only, ","); only != "" && !slices.Contains(chosen, b.name) && !slices.Contains(chosen, whole) {
			continue
		}
		fmt.Printf("%s: measuring…\n", b.name)
		figures, err := b.run(ctx, binary)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", b.name, err))
		}
		all = append(all, figures...)
		if ctx.Err() != nil {
			break
		}
	}
	return all, failed
}
