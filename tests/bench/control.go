package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/pprof"
	"slices"
	"syscall"
	"time"

	"github.com/tatami-faas/tatami/internal/heap"
	"github.com/tatami-faas/tatami/internal/procs"
)

// controlPlan is what the control plane is measured with.
type controlPlan struct {
	nodes, functions int
	// connections are the workers' to the bus; they share them where there are fewer.
	connections int
	// joined has the workers join as those of other machines do: from another process, each over a connection of its own, with TLS and what it may say
	// and hear.
	joined bool
	// rate is of the open loop in cold starts a second, for so long a round; clients are those of the closed loop.
	rate    float64
	length  time.Duration
	clients int
}

// dirigent is the rate of cold starts that Dirigent's authors report of their control plane.
const dirigent = 2500

// controlMain measures cold starts through gateway, bus and scheduler, on workers whose sandboxes only wait.
func controlMain(args []string) int {
	flags := flag.NewFlagSet("bench control", flag.ContinueOnError)
	out := flags.String("out", "out/bench.jsonl", "file to append a JSON line a figure to")
	flags.IntVar(&rounds, "rounds", rounds, "rounds; a figure of fewer than 5 is a trial")
	p := controlPlan{}
	flags.IntVar(&p.nodes, "nodes", 1000, "workers")
	flags.IntVar(&p.connections, "connections", 1000, "connections of the workers to the bus, which share them where there are fewer")
	flags.BoolVar(&p.joined, "joined", false, "measure workers in the server's process, and then as many that join from another process over TLS on TCP, each with a connection of its own; their figures' names end with _joined")
	flags.IntVar(&p.functions, "functions", 12_000, "functions, each of which starts once a round")
	flags.Float64Var(&p.rate, "rate", dirigent, "cold starts a second in the open loop")
	flags.DurationVar(&p.length, "length", 4*time.Second, "how long a round of the open loop takes")
	flags.IntVar(&p.clients, "clients", 500, "clients of the closed loop")
	profile := flags.String("cpuprofile", "", "file for a CPU profile of the rounds, labelled by part")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	rounds = max(rounds, 1)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The collector and the threads are set as `tatami up` sets them.
	quiet := slog.New(slog.DiscardHandler)
	heap.Choose(heap.Target(heap.Memory(os.DirFS("/"))), os.Getenv).Apply(quiet)
	procs.Apply(procs.Choose(runtime.GOMAXPROCS(0), os.Getenv), quiet)
	if p.joined {
		p.connections = p.nodes
	}
	begun := time.Now()
	all, err := benchControls(ctx, p, *profile)
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

// benchControls measures workers in the server's process, or, where they join, first those and then the ones that join.
func benchControls(ctx context.Context, p controlPlan, profile string) ([]figure, error) {
	if !p.joined {
		return benchControl(ctx, p, profile)
	}
	within := p
	within.joined = false
	fmt.Println("control: in the server's process:")
	all, err := benchControl(ctx, within, "")
	if err != nil {
		return nil, err
	}
	fmt.Println("control: joined from another process on the same processors, each over TLS on a connection of its own:")
	joined, err := benchControl(ctx, p, profile)
	if err != nil {
		return nil, err
	}
	for i := range joined {
		f := &joined[i]
		f.Metric += "_joined"
		if all[i].Value <= 0 {
			all = append(all, *f)
			continue
		}
		all = append(all, beside(f.Bench, f.Metric, f.Unit, f.Value, "in-process", all[i].Value, f.samples))
		fmt.Printf("control: %s is %.2f times that in the server's process\n", f.Metric, f.Value/all[i].Value)
	}
	return all, nil
}

// benchControl takes turns with an open loop at the plan's rate, whose latency counts, and a closed one, whose rate counts.
func benchControl(ctx context.Context, p controlPlan, profile string) (all []figure, err error) {
	if float64(p.functions) < p.rate*p.length.Seconds() {
		return nil, fmt.Errorf("%d functions are too few for %s at %.0f a second", p.functions, p.length, p.rate)
	}
	fmt.Printf("control: %d workers on %d connections, %d functions; added latency is from the time a call is due to its answer, less what its sandbox took, which waits for %s: filling…\n",
		p.nodes, min(p.connections, p.nodes), p.functions, sandboxTime)
	w, err := newControlWorld(ctx, p)
	if err != nil {
		return nil, err
	}
	defer func() {
		if cerr := w.close(); err == nil {
			err = cerr
		}
	}()
	if _, err := w.closedLoop(ctx, min(p.functions, 2*p.nodes), 100); err != nil {
		return nil, fmt.Errorf("warming up: %w", err)
	}
	if profile != "" {
		f, err := os.Create(profile)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return nil, err
		}
		defer pprof.StopCPUProfile()
	}
	var closed, p50, p99, over, late, cpu []float64
	var together []time.Duration
	collected := 0
	for range rounds {
		if err := w.settle(ctx); err != nil {
			return nil, err
		}
		// Whether a collection falls into a round would be chance: the last loop has one.
		runtime.GC()
		o, err := w.openLoop(ctx, p.rate, p.length)
		if err != nil {
			return nil, err
		}
		late = append(late, millis(at(o.late, 0.99)))
		p50, p99, cpu = append(p50, millis(at(o.added, 0.5))), append(p99, millis(at(o.added, 0.99))), append(cpu, o.cpuEach())
		over, together = append(over, o.over(0.99)), append(together, o.added...)
		if o.collections > 0 {
			collected++
		}
		fmt.Printf("control: of that, each by itself, p50 and p99: until called %s, until the scheduler knew %s, until the worker did %s, the sandbox over its time %s, until answered %s\n",
			o.step(0), o.step(1), o.step(2), o.step(3), o.step(4))
		if err := w.settle(ctx); err != nil {
			return nil, err
		}
		c, err := w.closedLoop(ctx, p.functions, p.clients)
		if err != nil {
			return nil, err
		}
		closed = append(closed, c.rate())
		fmt.Printf("control: open loop at %.0f/s: added p50 %.2f ms, p99 %.2f ms, p99.9 %.2f ms (over %s: p99 %.2f ms), %.0f µs of CPU a cold start%s, %d collections, idle timers late by p50 %.2f ms, p99 %.2f ms; closed loop of %d: %.0f/s, over %s p50 %.1f ms, %.0f µs\n",
			p.rate, millis(at(o.added, 0.5)), millis(at(o.added, 0.99)), millis(at(o.added, 0.999)), sandboxTime, o.over(0.99), o.cpuEach(), o.awayEach(), o.collections,
			millis(at(o.late, 0.5)), millis(at(o.late, 0.99)), p.clients, c.rate(), sandboxTime, c.over(0.5), c.cpuEach())
	}
	amid, err := w.collected(ctx, p)
	if err != nil {
		return nil, err
	}
	slices.Sort(together)
	fmt.Printf("control: of all rounds together added p99 %.2f ms; the garbage collector ran in the open loops of %d of %d\n", millis(at(together, 0.99)), collected, rounds)
	fmt.Printf("control: with a collection in its midst a loop of %s has added p50 %.2f ms, p99 %.2f ms; at this rate one comes every %s\n",
		p.length, millis(at(amid.added, 0.5)), millis(at(amid.added, 0.99)), amid.until.Round(time.Second))
	fmt.Printf("control: medians: added p50 %.2f ms, p99 %.2f ms (over %s: p99 %.2f ms), where timers that do nothing are late by %.2f ms, and %.0f µs of CPU a cold start at %.0f/s; the most %.0f/s, where Dirigent's authors report %d/s of theirs; %d processors\n",
		median(p50), median(p99), sandboxTime, median(over), median(late), median(cpu), p.rate, median(closed), dirigent, runtime.NumCPU())
	return []figure{
		{Bench: "scheduler", Metric: "control_plane_cold_per_s", Value: median(closed), Unit: "1/s", samples: rounds * p.functions},
		{Bench: "scheduler", Metric: "control_plane_added_p99_ms", Value: median(p99), Unit: "ms", samples: rounds * int(p.rate*p.length.Seconds())},
		{Bench: "scheduler", Metric: "control_plane_added_p99_collecting_ms", Value: millis(at(amid.added, 0.99)), Unit: "ms", samples: len(amid.added)},
		{Bench: "scheduler", Metric: "control_plane_over_40ms_p99_ms", Value: median(over), Unit: "ms", samples: rounds * int(p.rate*p.length.Seconds())},
		{Bench: "scheduler", Metric: "control_plane_timer_p99_ms", Value: median(late), Unit: "ms", samples: rounds * int(p.length/timerEvery)},
	}, nil
}

// outcome is what a loop did.
type outcome struct {
	// took holds the latencies, sorted; added what they are without the sandboxes' own times, of the open loop only.
	took, added []time.Duration
	// collections counts the garbage collector's.
	collections int
	// until is the time between two collections at the rate of the loop.
	until time.Duration
	// late is how late timers that do nothing were meanwhile, sorted; of the open loop only.
	late []time.Duration
	// steps are how long each call took from its time until it was made, until the scheduler knew of it, until the worker did, beyond the sandbox's
	// time until that was over, and until it was answered; each sorted by itself, of the open loop only.
	steps [5][]time.Duration
	// wall and cpu are of the whole loop, the clients' part included, and the workers' where they are in the same process; away is what others took.
	wall, cpu, away time.Duration
}

func (o *outcome) sort() { slices.Sort(o.took) }

// over is what a call took beyond the time that sandboxes wait for at the quantile, in ms.
func (o *outcome) over(q float64) float64 {
	if len(o.took) == 0 {
		return 0
	}
	return millis(at(o.took, q) - sandboxTime)
}

// step tells of a step.
func (o *outcome) step(i int) string {
	return fmt.Sprintf("%.2f and %.2f ms", millis(at(o.steps[i], 0.5)), millis(at(o.steps[i], 0.99)))
}

// at is the quantile of sorted durations.
func at(sorted []time.Duration, q float64) time.Duration {
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func (o *outcome) rate() float64 { return float64(len(o.took)) / o.wall.Seconds() }

// awayEach tells of the CPU time a cold start in the workers' own process, where they have one.
func (o *outcome) awayEach() string {
	if o.away == 0 {
		return ""
	}
	return fmt.Sprintf(" (and %.0f µs in the workers' process)", float64(o.away)/float64(time.Microsecond)/float64(max(len(o.took), 1)))
}

// cpuEach is the CPU time a cold start in µs.
func (o *outcome) cpuEach() float64 {
	return float64(o.cpu) / float64(time.Microsecond) / float64(max(len(o.took), 1))
}
