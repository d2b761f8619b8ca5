package main

import (
	"context"
	"fmt"
	"strconv"
	"time"
)

// What the noisy namespace may do, and how many times as much it asks for. Its calls sleep for a second: either bound alone lets as many begin.
const (
	noisyConcurrent = 10
	noisyRate       = 10
	noisyTimes      = 100
	noisySpec       = "namespace: noisy\ncpu: 250m\nmemory: 128Mi\nconcurrency: 100\nscale: {min: 1, max: 1, keepAlive: 1h}\n"
	quietSpec       = "namespace: quiet\ncpu: 500m\nmemory: 128Mi\nconcurrency: 100\nscale: {min: 1, max: 1, keepAlive: 1h}\n"
	// The other namespace's calls sleep for quietSleep ms. It asks for quietRate of them a second, in an open loop: quietConns are several times
	// what that needs.
	quietSleep = 10
	quietRate  = 500
	quietConns = 32
)

// noisyPhase is how long each load lasts: the p99 of one is that of quietRate x noisyPhase calls.
var noisyPhase = 8 * time.Second

// benchNoisy measures the p99 of a namespace's warm calls while another one asks for many times its quota, and while it does not, by turns.
func benchNoisy(ctx context.Context, binary string) (figures []figure, err error) {
	s, err := startServer(ctx, binary)
	if err != nil {
		return nil, err
	}
	defer func() { err = s.stopAfter(err) }()
	if err := s.deploy(ctx, "calm", "probe", quietSpec); err != nil {
		return nil, err
	}
	if err := s.deploy(ctx, "loud", "probe", noisySpec); err != nil {
		return nil, err
	}
	if _, err := s.CLI(ctx, "quota", "set", "noisy", "--concurrent", strconv.Itoa(noisyConcurrent), "--rate", strconv.Itoa(noisyRate)); err != nil {
		return nil, err
	}
	calm := func() (loadResult, error) {
		return load(ctx, s.Public, fmt.Sprintf("/fn/calm.quiet/sleep?ms=%d", quietSleep), loadOptions{conns: quietConns, d: noisyPhase, rate: quietRate})
	}
	if _, err := calm(); err != nil {
		return nil, err
	}
	var quiet, noisy []float64
	var asked, admitted int
	for round := range rounds {
		var p99 [2]float64
		for turn := range 2 {
			loud := (turn + round) % 2
			if loud == 0 {
				r, err := calm()
				if err != nil {
					return nil, err
				}
				p99[0] = r.P99us
				continue
			}
			r, noise, err := besideNoise(ctx, s, calm)
			if err != nil {
				return nil, err
			}
			p99[1] = r.P99us
			asked, admitted = asked+noise.Requests, admitted+noise.Requests-noise.Refused
		}
		quiet, noisy = append(quiet, p99[0]), append(noisy, p99[1])
	}
	const slept = quietSleep * 1000
	fmt.Printf("noisy: %d asked, %d admitted; p99 of calls that sleep %d ms: quiet %.0f us, noisy %.0f us; what they take beyond the sleep: %.2f times as much\n",
		asked, admitted, quietSleep, median(quiet), median(noisy), (median(noisy)-slept)/(median(quiet)-slept))
	if admitted == 0 || admitted*10 > asked {
		return nil, fmt.Errorf("%d of %d noisy calls were admitted: the quota does not hold, or nothing ran", admitted, asked)
	}
	ratio := figure{Bench: "scheduler", Metric: "noisy_p99_ratio", Value: median(noisy) / median(quiet), Unit: "x", samples: rounds}
	return []figure{ratio, beside("scheduler", "noisy_p99_us", "us", median(noisy), "quiet", median(quiet), rounds)}, nil
}

// besideNoise runs a load while the noisy namespace is at work before, during and after.
func besideNoise(ctx context.Context, s *server, run func() (loadResult, error)) (r, noise loadResult, err error) {
	type result struct {
		loadResult
		err error
	}
	const lead = 1500 * time.Millisecond
	done := make(chan result, 1)
	go func() {
		n, err := load(ctx, s.Public, "/fn/loud.noisy/sleep?ms=1000", loadOptions{
			conns: noisyTimes * noisyConcurrent, d: noisyPhase + 2*lead, rate: noisyTimes * noisyRate, refusals: true,
		})
		done <- result{n, err}
	}()
	select {
	case <-time.After(lead):
		r, err = run()
	case <-ctx.Done():
		err = ctx.Err()
	}
	n := <-done
	if err == nil {
		err = n.err
	}
	return r, n.loadResult, err
}
