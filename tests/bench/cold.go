package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// coldPerRound is how many samples of each way there are in a round.
var coldPerRound = 8

// coldWay is one way in which starts from zero are served, and what was measured of it.
type coldWay struct {
	path   string
	server *server
	took   []float64
	phases map[string][]float64
}

// coldSpaced measures calls from zero one at a time, on each start path, beside the kernel's floor, the plain containerd client path, that path's last
// step alone, as if the container had been made ahead, and a warm call. Each sample comes after 100 ms of idleness, and after a check that no instance of the function exists in any state.
func coldSpaced(ctx context.Context, binary string) (figures []figure, err error) {
	plain, ahead, fast := &coldWay{path: "containerd"}, &coldWay{path: "precreated"}, &coldWay{path: "attach"}
	ways := []*coldWay{plain, ahead, fast}
	flags := map[*coldWay][]string{plain: {"--sandbox-pool", "0", "--precreated", "0"}, ahead: {"--sandbox-pool", "0"}}
	for _, w := range ways {
		if w.server, err = startServer(ctx, binary, flags[w]...); err != nil {
			return nil, err
		}
		defer func() { err = w.server.stopAfter(err) }()
		if err := w.server.deploy(ctx, "cold", "hello", "scale: {keepAlive: 1s}\n"); err != nil {
			return nil, err
		}
		w.phases = map[string][]float64{}
	}
	bare, err := newBareContainerd(ctx, plain.server.RunDir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, bare.close()) }()
	bottom, err := newFloor(filepath.Join(bare.dir, "hello"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, bottom.close()) }()

	baselines := map[string]*baseline{"containerd-client": {start: bare.start}, "floor": {start: bottom.start}}
	warm := &baseline{start: func(ctx context.Context) (time.Duration, error) {
		took, _, err := fast.server.get(ctx, "/fn/cold")
		return took, err
	}}
	for round := range rounds {
		var turns []func() error
		for _, w := range ways {
			turns = append(turns, func() error { return w.round(ctx) })
		}
		for _, b := range baselines {
			turns = append(turns, func() error { return b.round(ctx) })
		}
		if round%2 == 1 {
			slices.Reverse(turns)
		}
		for _, turn := range turns {
			if err := turn(); err != nil {
				return nil, err
			}
		}
		// A first call brings the instance back that the others find.
		if _, _, err := fast.server.get(ctx, "/fn/cold"); err != nil {
			return nil, err
		}
		if err := warm.round(ctx); err != nil {
			return nil, err
		}
	}
	baselines["warm"] = warm
	baselines["containerd-start"] = &baseline{took: bare.started}
	for _, w := range ways {
		slices.Sort(w.took)
		printPhases("path "+w.path, w.phases)
	}
	for _, name := range []string{"floor", "containerd-client", "containerd-start", "warm"} {
		took := slices.Sorted(slices.Values(baselines[name].took))
		figures = append(figures,
			beside("cold", "p50_ms", "ms", quantile(fast.took, 0.5), name, quantile(took, 0.5), len(fast.took)),
			beside("cold", "p99_ms", "ms", quantile(fast.took, 0.99), name, quantile(took, 0.99), len(fast.took)))
		if name == "containerd-client" {
			figures = append(figures, beside("cold", "p50_ms_plain", "ms", quantile(plain.took, 0.5), name, quantile(took, 0.5), len(plain.took)))
		}
	}
	for _, w := range []*coldWay{plain, fast} {
		figures = append(figures, beside("cold", "p50_ms_precreated", "ms", quantile(ahead.took, 0.5), w.path, quantile(w.took, 0.5), len(ahead.took)))
	}
	return figures, nil
}

// coldMany measures many starts at once and one after the other, and what waiting and idling take.
func coldMany(ctx context.Context, binary string) (figures []figure, err error) {
	dir, err := os.MkdirTemp("/tmp", "ttcold")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	hello, err := buildHello(ctx, dir)
	if err != nil {
		return nil, err
	}
	// The floor has the machine for itself: what a server has mounted would be copied into each of its mount namespaces.
	least, err := floorBursts(ctx, hello)
	if err != nil {
		return nil, err
	}
	// What a server takes whose pool holds one sandbox only.
	single, _, err := serverMemory(ctx, binary, "--sandbox-pool", "1")
	if err != nil {
		return nil, err
	}
	before := available()
	srv, err := startServer(ctx, binary)
	if err != nil {
		return nil, err
	}
	defer func() { err = srv.stopAfter(err) }()
	f, err := newColdServer(srv)
	if err != nil {
		return nil, err
	}
	defer f.control.Close()
	size, err := f.settle(ctx)
	if err != nil {
		return nil, err
	}
	idle := max(0, before-available()-single)
	if err := f.deploy(ctx, hello); err != nil {
		return nil, err
	}
	var bursts []float64
	for range min(rounds, 3) {
		took, err := f.burst(ctx)
		if err != nil {
			return nil, err
		}
		bursts = append(bursts, ms(took))
	}
	s, err := f.sustain(ctx, sustainRate, sustainTime)
	if err != nil {
		return nil, err
	}
	most, err := f.sustain(ctx, mostRate, min(sustainTime, mostTime))
	if err != nil {
		return nil, err
	}
	kept, err := f.keptMemory(ctx)
	if err != nil {
		return nil, err
	}
	alone := func(metric, unit string, v float64, samples int) figure {
		return figure{Bench: "cold", Metric: metric, Value: v, Unit: unit, samples: samples}
	}
	return []figure{
		beside("cold", "burst100_ms", "ms", median(bursts), "floor", median(least), len(bursts)),
		alone("sustained_per_s", "/s", s.perSecond, s.cold),
		beside("cold", "sustained_pool", "sandboxes", s.after, "before", s.before, 1),
		alone("sustained_p99_ms", "ms", s.p99, s.cold),
		alone("cpu_ms_per_start", "ms", s.cpuMs, s.cold),
		beside("cold", "sustained_most_per_s", "/s", most.perSecond, "offered", most.offered, most.cold),
		alone("sustained_most_p99_ms", "ms", most.p99, most.cold),
		alone("cpu_ms_per_start_most", "ms", most.cpuMs, most.cold),
		alone("pool_idle_mb", "MB", idle/1e6, int(size)),
		alone("idle_kb_per_instance", "kB", kept/1e3, burstSize),
	}, nil
}

// floorBursts measures bursts of starts with what the kernel offers and nothing else, in milliseconds.
func floorBursts(ctx context.Context, function string) (took []float64, err error) {
	bottom, err := newFloor(function)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, bottom.close()) }()
	for range min(rounds, 3) {
		// The kernel takes network namespaces away in its own time.
		time.Sleep(2 * time.Second)
		d, err := bottom.burst(ctx, burstSize)
		if err != nil {
			return nil, err
		}
		fmt.Printf("  cold: burst of %d at the floor in %.0f ms\n", burstSize, ms(d))
		took = append(took, ms(d))
	}
	return took, nil
}

// serverMemory is what a server takes of the machine's memory once its pool is full, in bytes.
func serverMemory(ctx context.Context, binary string, more ...string) (bytes, waiting float64, err error) {
	before := available()
	srv, err := startServer(ctx, binary, more...)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = srv.stopAfter(err) }()
	f, err := newColdServer(srv)
	if err != nil {
		return 0, 0, err
	}
	defer f.control.Close()
	if waiting, err = f.settle(ctx); err != nil {
		return 0, 0, err
	}
	return before - available(), waiting, nil
}

// baseline is what is measured in turns with the ways.
type baseline struct {
	start func(context.Context) (time.Duration, error)
	took  []float64
}

func (b *baseline) round(ctx context.Context) error {
	for range coldPerRound {
		time.Sleep(100 * time.Millisecond)
		took, err := b.start(ctx)
		if err != nil {
			return err
		}
		b.took = append(b.took, ms(took))
	}
	return nil
}

var startPath = regexp.MustCompile(`path;desc="([^"]*)"`)

// waitsFor is the metric of what has to wait for a start to take the path.
var waitsFor = map[string]string{"attach": poolWaiting, "precreated": "tatami_sandbox_precreated"}

// round takes the samples of one round.
func (w *coldWay) round(ctx context.Context) error {
	for range coldPerRound {
		if err := w.server.AwaitZero(ctx, "cold"); err != nil {
			return err
		}
		if of := waitsFor[w.path]; of != "" {
			if err := w.server.awaitSandbox(ctx, of); err != nil {
				return err
			}
		}
		time.Sleep(100 * time.Millisecond)
		took, header, err := w.server.get(ctx, "/fn/cold")
		if err != nil {
			return err
		}
		timing := header.Get("Server-Timing")
		if !strings.Contains(timing, "create;dur=") {
			return fmt.Errorf("a sample was no cold start: %q", timing)
		}
		if m := startPath.FindStringSubmatch(timing); m == nil || m[1] != w.path {
			return fmt.Errorf("a sample took another path than %s: %q", w.path, timing)
		}
		addPhases(w.phases, timing)
		w.took = append(w.took, ms(took))
		fmt.Printf("  cold: %6.1f ms, start path %s (%s)\n", ms(took), w.path, timing)
	}
	return nil
}

func addPhases(into map[string][]float64, timing string) {
	for part := range strings.SplitSeq(timing, ",") {
		name, dur, ok := strings.Cut(strings.TrimSpace(part), ";dur=")
		var v float64
		if _, err := fmt.Sscan(dur, &v); ok && err == nil {
			into[name] = append(into[name], v)
		}
	}
}

func printPhases(of string, phases map[string][]float64) {
	for _, name := range []string{"queue", "place", "prepare", "create", "start", "ready", "run"} {
		fmt.Printf("  cold, %-15s phase %-8s p50 %6.2f ms\n", of, name, median(phases[name]))
	}
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
