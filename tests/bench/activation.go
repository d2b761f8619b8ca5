package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// activationPool is a pool that one start at a time never empties.
const activationPool = "32"

// benchActivation measures starts from zero of a function that is given its listening socket, by turns with the same function that listens by
// itself, as an ordinary user and as root of a user namespace, all in sandboxes made ahead, and with the plain containerd client path.
func benchActivation(ctx context.Context, binary string) (figures []figure, err error) {
	s, err := startServer(ctx, binary, "--sandbox-pool", activationPool)
	if err != nil {
		return nil, err
	}
	defer func() { err = s.stopAfter(err) }()
	took := map[string][]float64{}
	phases := map[string]map[string][]float64{"given": {}, "listens": {}, "root": {}}
	for name, readiness := range map[string]string{"given": "readiness: {activation: true}\n", "listens": ""} {
		if err := s.deploy(ctx, name, "hello", "scale: {keepAlive: 1s}\n"+readiness); err != nil {
			return nil, err
		}
	}
	bare, err := newBareContainerd(ctx, s.RunDir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, bare.close()) }()
	root, err := saveHello(bare.dir, "0")
	if err != nil {
		return nil, err
	}
	if err := s.deployFile(ctx, "root", root, "scale: {keepAlive: 1s}\n"); err != nil {
		return nil, err
	}
	for range rounds * coldPerRound {
		for _, name := range []string{"given", "listens", "root"} {
			sample, timing, err := coldSample(ctx, s, name)
			if err != nil {
				return nil, err
			}
			addPhases(phases[name], timing)
			took[name] = append(took[name], sample)
		}
		time.Sleep(100 * time.Millisecond)
		theirs, err := bare.start(ctx)
		if err != nil {
			return nil, err
		}
		took["containerd-client"] = append(took["containerd-client"], ms(theirs))
	}
	for name := range took {
		slices.Sort(took[name])
		fmt.Printf("  activation: %-17s p50 %6.2f ms, p99 %6.2f ms\n", name, quantile(took[name], 0.5), quantile(took[name], 0.99))
	}
	for name, of := range phases {
		printPhases(name, of)
	}
	given, rooted := took["given"], took["root"]
	return []figure{
		beside("cold", "p50_ms_activation", "ms", quantile(given, 0.5), "containerd-client", quantile(took["containerd-client"], 0.5), len(given)),
		beside("cold", "p50_ms_activation", "ms", quantile(given, 0.5), "listens", quantile(took["listens"], 0.5), len(given)),
		beside("cold", "p50_ms_root", "ms", quantile(rooted, 0.5), "containerd-client", quantile(took["containerd-client"], 0.5), len(rooted)),
		beside("cold", "p50_ms_root", "ms", quantile(rooted, 0.5), "listens", quantile(took["listens"], 0.5), len(rooted)),
	}, nil
}

// coldSample is a call from zero that finds a sandbox made ahead, in milliseconds, and what its answer says of the phases.
func coldSample(ctx context.Context, s *server, fn string) (took float64, timing string, err error) {
	for range 10 {
		if err := s.AwaitZero(ctx, fn); err != nil {
			return 0, "", err
		}
		time.Sleep(100 * time.Millisecond)
		took, header, err := s.get(ctx, "/fn/"+fn)
		if err != nil {
			return 0, "", err
		}
		// The pool may not be filled yet.
		timing := header.Get("Server-Timing")
		if m := startPath.FindStringSubmatch(timing); m != nil && m[1] == "attach" {
			return ms(took), timing, nil
		}
	}
	return 0, "", fmt.Errorf("no start of %s found a sandbox made ahead", fn)
}
