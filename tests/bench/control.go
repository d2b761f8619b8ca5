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
	// near has the gateway tell the scheduler of its process what it needs by a call, as on one machine; else over the bus, as in a cluster.
	near bool
	// share is how much of the processors another process takes meanwhile, in turns as short and as many as those of workers; 1 is one processor.
	share float64
	// rate is of the open loop in cold starts a second, for so long a round, beside another one at double of it; clients are those of the closed loop.
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
	flags.BoolVar(&p.near, "near", false, "have the gateway tell the scheduler by a call what it needs, as tatami up does; else over the bus, as in a cluster")
	flags.IntVar(&p.functions, "functions", 12_000, "functions, each of which starts once a round")
	flags.Float64Var(&p.rate, "rate", dirigent, "cold starts a second in the open loop; another one has double of it")
	flags.DurationVar(&p.length, "length", 4*time.Second, "how long a round of the open loop takes")
	flags.IntVar(&p.clients, "clients", 500, "clients of the closed loop")
	profile := flags.String("cpuprofile", "", "file for a CPU profile of the rounds, labelled by part; that of the workers' own process, where they have one, goes beside it, as FILE.workers")
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

// benchControls measures workers in the server's process, or, where they join, first those, then the ones that join, and then those in the process
// once more, while another process takes as much of the processors as the joined ones' did: workers of other machines would take nothing.
func benchControls(ctx context.Context, p controlPlan, profile string) ([]figure, error) {
	if !p.joined {
		all, _, err := benchControl(ctx, p, profile)
		return all, err
	}
	within := p
	within.joined = false
	fmt.Println("control: in the server's process:")
	all, _, err := benchControl(ctx, within, "")
	if err != nil {
		return nil, err
	}
	fmt.Println("control: joined from another process on the same processors, each over TLS on a connection of its own:")
	joined, share, err := benchControl(ctx, p, profile)
	if err != nil {
		return nil, err
	}
	within.share = share
	fmt.Printf("control: in the server's process, while another one takes %.2f processors, as the joined workers' did:\n", share)
	shared, _, err := benchControl(ctx, within, "")
	if err != nil {
		return nil, err
	}
	alone := all
	for i, f := range joined {
		f.Metric += "_joined"
		all = append(all, beside(f.Bench, f.Metric, f.Unit, f.Value, "in-process", alone[i].Value, f.samples),
			beside(f.Bench, f.Metric, f.Unit, f.Value, "in-process-shared", shared[i].Value, f.samples))
	}
	return all, nil
}

// benchControl takes turns with open loops at the plan's rate and double of it, whose latency counts, and a closed one, whose rate counts.
// It returns, too, how much of the processors the workers' own process took in the open loop at the plan's rate.
func benchControl(ctx context.Context, p controlPlan, profile string) (all []figure, share float64, err error) {
	if float64(p.functions) < p.rate*p.length.Seconds() {
		return nil, 0, fmt.Errorf("%d functions are too few for %s at %.0f a second", p.functions, p.length, p.rate)
	}
	fmt.Printf("control: %d workers on %d connections, %d functions; added latency is from the time a call is due to its answer, less what its sandbox took, which waits for %s: filling…\n",
		p.nodes, min(p.connections, p.nodes), p.functions, sandboxTime)
	w, err := newControlWorld(ctx, p)
	if err != nil {
		return nil, 0, err
	}
	defer func() {
		if cerr := w.close(); err == nil {
			err = cerr
		}
	}()
	if _, err := w.closedLoop(ctx, min(p.functions, 2*p.nodes), 100); err != nil {
		return nil, 0, fmt.Errorf("warming up: %w", err)
	}
	if profile != "" {
		f, err := os.Create(profile)
		if err != nil {
			return nil, 0, err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return nil, 0, err
		}
		defer pprof.StopCPUProfile()
		if err := w.workers.profile(profile + ".workers"); err != nil {
			return nil, 0, err
		}
	}
	var closed []float64
	offers := p.offers()
	for range rounds {
		for _, f := range offers {
			if err := f.round(ctx, w); err != nil {
				return nil, 0, err
			}
		}
		if err := w.settle(ctx); err != nil {
			return nil, 0, err
		}
		c, err := w.closedLoop(ctx, p.functions, p.clients)
		if err != nil {
			return nil, 0, err
		}
		closed = append(closed, c.rate())
		fmt.Printf("control: closed loop of %d: %.0f/s, over %s p50 %.1f ms, %.0f µs of CPU a cold start%s, %d collections\n",
			p.clients, c.rate(), sandboxTime, c.over(0.5), c.cpuEach(), c.awayEach(), c.collections)
	}
	amid, err := w.collected(ctx, p)
	if err != nil {
		return nil, 0, err
	}
	for _, f := range offers {
		f.tell()
	}
	fmt.Printf("control: with a collection in its midst a loop of %s has added p50 %.2f ms, p99 %.2f ms; %s; at this rate a collection comes every %s\n",
		p.length, millis(at(amid.added, 0.5)), millis(at(amid.added, 0.99)), amid.besides(), amid.until.Round(time.Second))
	fmt.Printf("control: the most %.0f/s, where Dirigent's authors report %d/s of theirs; %d processors\n", median(closed), dirigent, runtime.NumCPU())
	demanded, double := offers[0], offers[1]
	return append(append([]figure{
		{Bench: "scheduler", Metric: "control_plane_cold_per_s", Value: median(closed), Unit: "1/s", samples: rounds * p.functions},
		{Bench: "scheduler", Metric: "control_plane_added_p99_collecting_ms", Value: millis(at(amid.added, 0.99)), Unit: "ms", samples: len(amid.added)},
		{Bench: "scheduler", Metric: "control_plane_over_40ms_p99_ms", Value: median(demanded.over), Unit: "ms", samples: len(demanded.together)},
		{Bench: "scheduler", Metric: "control_plane_timer_p99_ms", Value: median(demanded.late), Unit: "ms", samples: rounds * int(p.length/timerEvery)},
	}, demanded.figures("")...), double.figures(fmt.Sprintf("_r%.0f", double.rate))...), median(demanded.away), nil
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
	// drawn is the rate at which the open loop's calls were due.
	drawn float64
	// wall and cpu are of the whole loop, the clients' part included, and the workers' where they are in the same process; away is what the workers'
	// own process took, where they have one, and others what any other process did: where that is much, the loop measures it.
	wall, cpu, away, others time.Duration
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

// held is the rate at which an open loop's calls were answered, without the time of the last one's sandbox.
func (o *outcome) held() float64 { return float64(len(o.took)) / (o.wall - sandboxTime).Seconds() }

func (o *outcome) rate() float64 { return float64(len(o.took)) / o.wall.Seconds() }

// awayEach tells of the CPU time a cold start in the workers' own process, where they have one.
func (o *outcome) awayEach() string {
	if o.away == 0 {
		return ""
	}
	return fmt.Sprintf(" (and %.0f µs in the workers' process)", float64(o.away)/float64(time.Microsecond)/float64(max(len(o.took), 1)))
}

// besides tells how much of the processors other processes took.
func (o *outcome) besides() string {
	return fmt.Sprintf("other processes took %.2f processors", max(o.others.Seconds()/o.wall.Seconds(), 0))
}

// cpuEach is the CPU time a cold start in µs.
func (o *outcome) cpuEach() float64 {
	return float64(o.cpu) / float64(time.Microsecond) / float64(max(len(o.took), 1))
}
