package main

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

const (
	coldPerRound = 8
	// coldPool is the pool of the server that has one.
	coldPool = "8"
)

// coldWay is one way in which starts from zero are served, and what was measured of it.
type coldWay struct {
	path   string
	server *server
	took   []float64
	phases map[string][]float64
}

// benchCold measures calls from zero through the gateway, with sandboxes made ahead and without, beside the plain containerd client path
// for the same binary with the same limits: snapshot, container, task, start, first answer. Each sample comes after 100 ms of idleness,
// and after a check that no instance of the function exists in any state.
func benchCold(ctx context.Context, binary string) (figures []figure, err error) {
	ways := []*coldWay{{path: "containerd"}, {path: "attach"}}
	for _, w := range ways {
		var more []string
		if w.path == "attach" {
			more = []string{"--sandbox-pool", coldPool}
		}
		if w.server, err = startServer(ctx, binary, more...); err != nil {
			return nil, err
		}
		defer func() { err = w.server.stopAfter(err) }()
		if err := w.server.deploy(ctx, "cold", "hello", "scale: {keepAlive: 1s}\n"); err != nil {
			return nil, err
		}
		w.phases = map[string][]float64{}
	}
	bare, err := newBareContainerd(ctx, ways[0].server.RunDir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if cerr := bare.close(); err == nil {
			err = cerr
		}
	}()

	var theirs []float64
	for round := range rounds {
		var turns []func() error
		for _, w := range ways {
			turns = append(turns, func() error { return w.round(ctx) })
		}
		turns = append(turns, func() error {
			for range coldPerRound {
				time.Sleep(100 * time.Millisecond)
				took, err := bare.start(ctx)
				if err != nil {
					return err
				}
				theirs = append(theirs, ms(took))
			}
			return nil
		})
		if round%2 == 1 {
			slices.Reverse(turns)
		}
		for _, turn := range turns {
			if err := turn(); err != nil {
				return nil, err
			}
		}
	}
	slices.Sort(theirs)
	for _, w := range ways {
		slices.Sort(w.took)
		for _, name := range []string{"queue", "place", "prepare", "create", "start", "ready", "run"} {
			fmt.Printf("  cold, path %-10s phase %-8s p50 %6.2f ms\n", w.path, name, median(w.phases[name]))
		}
		fmt.Printf("  cold, path %s over containerd-client: p50 %+.1f ms\n", w.path, quantile(w.took, 0.5)-quantile(theirs, 0.5))
		suffix := ""
		if w.path != "containerd" {
			suffix = "_" + w.path
		}
		figures = append(figures,
			beside("cold", "p50_ms"+suffix, "ms", quantile(w.took, 0.5), "containerd-client", quantile(theirs, 0.5), len(w.took)),
			beside("cold", "p99_ms"+suffix, "ms", quantile(w.took, 0.99), "containerd-client", quantile(theirs, 0.99), len(w.took)))
	}
	return figures, nil
}

var startPath = regexp.MustCompile(`path;desc="([^"]*)"`)

// round takes the samples of one round.
func (w *coldWay) round(ctx context.Context) error {
	for range coldPerRound {
		if err := w.server.AwaitZero(ctx, "cold"); err != nil {
			return err
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

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
