package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/gateway/client"
)

const (
	thawsPerRound = 20
	// manyFunctions are deployed, and each is called once; keptFrozen of them have an instance that stays.
	manyFunctions, keptFrozen = 1000, 300
	// manyAtOnce is how many of them are deployed, or called, at the same time.
	manyAtOnce = 8
)

// benchFrozen measures a call to a frozen instance beside one to a warm instance, and what frozen instances take of the node.
func benchFrozen(ctx context.Context, binary string) ([]figure, error) {
	thawed, err := benchThaw(ctx, binary)
	if err != nil {
		return nil, err
	}
	held, err := benchHeld(ctx, binary)
	return append(thawed, held...), err
}

// benchThaw calls one instance by turns while it is frozen, and again at once, when it is warm. Each call has a connection of its own.
func benchThaw(ctx context.Context, binary string) (figures []figure, err error) {
	s, err := startServer(ctx, binary)
	if err != nil {
		return nil, err
	}
	defer func() { err = s.stopAfter(err) }()
	if err := s.deploy(ctx, "ice", "hello", "scale: {min: 1, max: 1, freezeAfter: 100ms, keepAlive: 10m}\n"); err != nil {
		return nil, err
	}
	c, err := client.New("unix://" + filepath.Join(s.RunDir, "control.sock"))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var frozen, warm []float64
	for range rounds * thawsPerRound {
		if err := awaitFrozen(ctx, c, 1); err != nil {
			return nil, err
		}
		for _, into := range []*[]float64{&frozen, &warm} {
			// As idle as before the first one, but shorter than the grace.
			time.Sleep(50 * time.Millisecond)
			took, header, err := s.get(ctx, "/fn/ice")
			if err != nil {
				return nil, err
			}
			if timing := header.Get("Server-Timing"); strings.Contains(timing, "create;dur=") {
				return nil, fmt.Errorf("a sample was a cold start: %q", timing)
			}
			*into = append(*into, float64(took)/float64(time.Microsecond))
		}
	}
	slices.Sort(frozen)
	slices.Sort(warm)
	fmt.Printf("  frozen: a call is %+.0f us over a warm one at p50, %+.0f us at p99\n",
		quantile(frozen, 0.5)-quantile(warm, 0.5), quantile(frozen, 0.99)-quantile(warm, 0.99))
	return []figure{
		beside("cold", "thaw_p50_us", "us", quantile(frozen, 0.5), "warm", quantile(warm, 0.5), len(frozen)),
		beside("cold", "thaw_p99_us", "us", quantile(frozen, 0.99), "warm", quantile(warm, 0.99), len(frozen)),
	}, nil
}

// awaitFrozen waits until so many instances are frozen, and none is in another state.
func awaitFrozen(ctx context.Context, c *client.Client, n int) error {
	last := ""
	for begun := time.Now(); time.Since(begun) < 90*time.Second; {
		all, err := c.Instances(ctx, client.InstanceFilter{})
		if err != nil {
			return err
		}
		count := map[functions.InstanceState]int{}
		for _, i := range all {
			if !i.State.Gone() {
				count[i.State]++
			}
		}
		if last = fmt.Sprint(count); len(count) <= 1 && count[functions.InstanceFrozen] == n {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	return fmt.Errorf("not %d instances frozen, and nothing else, within 90 s: %s", n, last)
}

// benchHeld deploys many functions and calls each once, those first that go to zero again; then it looks at what the others, which are kept
// frozen, take of the node, their functions included.
func benchHeld(ctx context.Context, binary string) (figures []figure, err error) {
	// Each instance may take the least there is; together they may want more of the processors than there are, which they never do at once. The
	// server collects its garbage often: what deploys and calls have left in its heap is no instance's.
	s, err := startServer(ctx, binary, "--sandbox-pool", activationPool, "--grant-cpu", strconv.Itoa(2*keptFrozen*leastCPU)+"m", "--heap-target", "64Mi")
	if err != nil {
		return nil, err
	}
	defer func() { err = s.stopAfter(err) }()
	c, err := client.New("unix://" + filepath.Join(s.RunDir, "control.sock"))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := s.deploy(ctx, "first", "hello", "scale: {keepAlive: 1s}\n"); err != nil {
		return nil, err
	}
	first, err := c.Function(ctx, functions.Ref{Namespace: "default", Name: "first"})
	if err != nil {
		return nil, err
	}
	if err := s.AwaitZero(ctx, "first"); err != nil {
		return nil, err
	}
	empty, err := nodeNow()
	if err != nil {
		return nil, err
	}
	begun := time.Now()
	if err := callMany(ctx, s, c, first.Current.Artifact, keptFrozen, manyFunctions); err != nil {
		return nil, err
	}
	if err := awaitFrozen(ctx, c, 0); err != nil {
		return nil, err
	}
	before, err := nodeNow()
	if err != nil {
		return nil, err
	}
	if err := callMany(ctx, s, c, first.Current.Artifact, 0, keptFrozen); err != nil {
		return nil, err
	}
	called := time.Since(begun)
	if err := awaitFrozen(ctx, c, keptFrozen); err != nil {
		return nil, err
	}
	after, err := nodeNow()
	if err != nil {
		return nil, err
	}
	kib := func(from, to nodeState, n float64) float64 {
		return float64(from.available-to.available) / n / float64(functions.KiB)
	}
	per := kib(before, after, keptFrozen)
	fmt.Printf("  frozen: %d functions deployed, and each called once, in %.0f s; %d instances kept frozen\n", manyFunctions, called.Seconds(), keptFrozen)
	fmt.Printf("  frozen: the node has %d MiB available, %d before the first deploy; %d processes, %d before; %.0f KiB a frozen instance with its function, %.0f KiB a function at zero\n",
		after.available/functions.MiB, empty.available/functions.MiB, after.processes, empty.processes, per, kib(empty, before, manyFunctions-keptFrozen))
	plain := func(metric, unit string, v float64) figure {
		return figure{Bench: "cold", Metric: metric, Value: v, Unit: unit, samples: keptFrozen}
	}
	return []figure{
		plain("idle_kb_per_instance", "KiB", per),
		plain("zero_kb_per_function", "KiB", kib(empty, before, manyFunctions-keptFrozen)),
		beside("cold", "frozen300_available_mb", "MiB", float64(after.available/functions.MiB), "before", float64(empty.available/functions.MiB), 1),
		beside("cold", "frozen300_processes", "processes", float64(after.processes), "before", float64(empty.processes), 1),
	}, nil
}

// callMany deploys the functions of these numbers and calls each once.
func callMany(ctx context.Context, s *server, c *client.Client, a functions.Artifact, from, to int) error {
	if err := each(ctx, to-from, func(ctx context.Context, i int) error { return deployMany(ctx, c, from+i, a) }); err != nil {
		return fmt.Errorf("deploy %d functions: %w", to-from, err)
	}
	if err := each(ctx, to-from, func(ctx context.Context, i int) error { return callOnce(ctx, s, from+i) }); err != nil {
		return fmt.Errorf("call each of %d functions: %w", to-from, err)
	}
	return nil
}

// leastCPU is the least of the processors that an instance may be given, in millicores.
const leastCPU = 10

func manyName(i int) string { return fmt.Sprintf("many-%03d", i) }

func deployMany(ctx context.Context, c *client.Client, i int, a functions.Artifact) error {
	cfg := functions.Config{Concurrency: 1, Limits: functions.Limits{CPU: leastCPU, Memory: 16 * functions.MiB, Ephemeral: functions.MiB}}
	cfg.Scale = functions.Scale{Max: 1, KeepAlive: functions.Duration(time.Second)}
	if i < keptFrozen {
		cfg.Scale.KeepAlive, cfg.Scale.FreezeAfter = functions.Duration(time.Hour), functions.Duration(time.Second)
	}
	ref := functions.Ref{Namespace: "default", Name: manyName(i)}
	_, err := c.Deploy(ctx, ref, v1.DeployRequest{Digest: a.Digest, Name: a.Name, Config: cfg})
	return err
}

func callOnce(ctx context.Context, s *server, i int) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.Public+"/fn/"+manyName(i), nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		return errors.Join(err, fmt.Errorf("%s: %s: %s", manyName(i), resp.Status, body))
	}
	return nil
}

// each does something for every number below n, some at a time.
func each(ctx context.Context, n int, do func(context.Context, int) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(manyAtOnce)
	for i := range n {
		g.Go(func() error { return do(ctx, i) })
	}
	return g.Wait()
}

// nodeState is what a node has at a time.
type nodeState struct {
	// available is in bytes.
	available int64
	processes int
}

// nodeNow looks a few times, and takes the median: memory comes back late.
func nodeNow() (nodeState, error) {
	var available, processes []float64
	for range 5 {
		time.Sleep(400 * time.Millisecond)
		kib, err := availableKiB()
		if err != nil {
			return nodeState{}, err
		}
		entries, err := os.ReadDir("/proc")
		if err != nil {
			return nodeState{}, err
		}
		n := 0
		for _, e := range entries {
			if _, err := strconv.Atoi(e.Name()); err == nil {
				n++
			}
		}
		available, processes = append(available, float64(kib)), append(processes, float64(n))
	}
	return nodeState{available: int64(median(available)) * functions.KiB, processes: int(median(processes))}, nil
}

func availableKiB() (int64, error) {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	for line := range strings.SplitSeq(string(b), "\n") {
		if w := strings.Fields(line); len(w) > 1 && w[0] == "MemAvailable:" {
			return strconv.ParseInt(w[1], 10, 64)
		}
	}
	return 0, errors.New("/proc/meminfo does not tell what is available")
}
