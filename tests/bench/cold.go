package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

const coldPerRound = 8

// benchCold measures calls from zero through the gateway beside the plain containerd client path for the same binary with the same
// limits: snapshot, container, task, start, first answer. Each sample comes after 100 ms of idleness, and after a check that no instance
// of the function exists in any state.
func benchCold(ctx context.Context, binary string) (figures []figure, err error) {
	s, err := startServer(ctx, binary)
	if err != nil {
		return nil, err
	}
	defer func() { err = s.stopAfter(err) }()
	if err := s.deploy(ctx, "cold", "hello", "scale: {keepAlive: 1s}\n"); err != nil {
		return nil, err
	}
	bare, err := newBareContainerd(ctx, s.runDir())
	if err != nil {
		return nil, err
	}
	defer func() {
		if cerr := bare.close(); err == nil {
			err = cerr
		}
	}()

	var ours, theirs []float64
	phases := map[string][]float64{}
	for round := range rounds {
		turns := []func() error{
			func() error {
				for range coldPerRound {
					if err := s.awaitZero(ctx, "cold"); err != nil {
						return err
					}
					time.Sleep(100 * time.Millisecond)
					took, header, err := s.get(ctx, "/fn/cold")
					if err != nil {
						return err
					}
					timing := header.Get("Server-Timing")
					if !strings.Contains(timing, "create;dur=") {
						return fmt.Errorf("a sample was no cold start: %q", timing)
					}
					addPhases(phases, timing)
					ours = append(ours, ms(took))
					fmt.Printf("  cold: %6.1f ms, start path containerd (%s)\n", ms(took), timing)
				}
				return nil
			},
			func() error {
				for range coldPerRound {
					time.Sleep(100 * time.Millisecond)
					took, err := bare.start(ctx)
					if err != nil {
						return err
					}
					theirs = append(theirs, ms(took))
				}
				return nil
			},
		}
		if round%2 == 1 {
			slices.Reverse(turns)
		}
		for _, turn := range turns {
			if err := turn(); err != nil {
				return nil, err
			}
		}
	}
	slices.Sort(ours)
	slices.Sort(theirs)
	for _, name := range []string{"place", "prepare", "create", "start", "ready", "run"} {
		fmt.Printf("  cold phase %-8s p50 %6.2f ms\n", name, median(phases[name]))
	}
	fmt.Printf("  cold over containerd-client: p50 %+.1f ms\n", quantile(ours, 0.5)-quantile(theirs, 0.5))
	return []figure{
		beside("cold", "p50_ms", "ms", quantile(ours, 0.5), "containerd-client", quantile(theirs, 0.5), len(ours)),
		beside("cold", "p99_ms", "ms", quantile(ours, 0.99), "containerd-client", quantile(theirs, 0.99), len(ours)),
	}, nil
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
