package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"syscall"
	"time"

	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/tests/process"
)

const (
	// clusterWorkers is how many workers join, one after the other.
	clusterWorkers = 3
	// workerCPU is what each of them grants functions, and workSpec a function that has one instance on each, which takes most of that.
	workerCPU = "500m"
	workSpec  = "cpu: 400m\nmemory: 64Mi\nconcurrency: 2\nscale: {min: 3, max: 3, keepAlive: 1h}\n"
	// workPath does the same work each time it is called, about 4 ms of a processor.
	workPath = "/fn/busy/spin?steps=4000000"
	// fillSpec is a function that wants more instances than fit anywhere.
	fillSpec = "cpu: 60m\nmemory: 16Mi\nephemeral: 1Mi\nscale: {min: 60, max: 60, keepAlive: 1h}\n"
	// settleTime is how long the number of instances must not have changed.
	settleTime = 2 * time.Second
)

// workPhase is how long each load lasts.
var workPhase = 2 * time.Second

// joinedServer is a server without instances of its own, and the workers that joined it.
type joinedServer struct {
	*server
	addr    string
	workers []*process.Process
}

func startJoined(ctx context.Context, binary string) (*joinedServer, error) {
	addr, err := process.FreeAddr("")
	if err != nil {
		return nil, err
	}
	s, err := startServer(ctx, binary, "--no-worker", "--nats-listen", addr)
	if err != nil {
		return nil, err
	}
	return &joinedServer{server: s, addr: addr}, nil
}

// join adds a worker, as a process of its own that the gateway reaches over TLS.
func (s *joinedServer) join(ctx context.Context, binary string, flags ...string) error {
	name := fmt.Sprintf("%s-w%d", filepath.Base(s.Dir), len(s.workers)+1)
	w, err := process.Start(ctx, process.Config{Binary: binary, Args: append([]string{
		"worker", "--join", "nats://" + s.addr, "--token-file", filepath.Join(s.Dir, "data", "worker.token"), "--data-dir", filepath.Join(s.Dir, name),
		"--run-dir", filepath.Join(s.Dir, fmt.Sprintf("r%d", len(s.workers)+1)), "--node-name", name, "--log-level", "warn",
	}, flags...)})
	if err == nil {
		s.workers = append(s.workers, w)
	}
	return err
}

// leave ends the worker that joined last.
func (s *joinedServer) leave() error {
	last := len(s.workers) - 1
	err := s.workers[last].End(syscall.SIGINT)
	s.workers = s.workers[:last]
	return err
}

// stopAfter ends the workers and the server, and returns err, or what went wrong with that.
func (s *joinedServer) stopAfter(err error) error {
	for len(s.workers) > 0 {
		if lerr := s.leave(); err == nil {
			err = lerr
		}
	}
	return s.server.stopAfter(err)
}

// ready waits until so many instances of a function are ready, or, where n is 0, until their number stays as it is; it returns it.
func (s *joinedServer) ready(ctx context.Context, fn string, n int) (int, error) {
	last, since := 0, time.Now()
	for begun := time.Now(); ; {
		all, err := s.Instances(ctx, fn)
		if err != nil {
			return 0, err
		}
		serve := 0
		for _, i := range all {
			if i.State.Serves() {
				serve++
			}
		}
		if serve != last {
			last, since = serve, time.Now()
		}
		if n > 0 && serve == n && len(all) == n || n == 0 && serve > 0 && len(all) == serve && time.Since(since) > settleTime {
			return serve, nil
		}
		if time.Since(begun) > time.Minute {
			return 0, fmt.Errorf("%d instances of %s are ready after a minute, not %d", serve, fn, n)
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// reserved is the share of the processors of all nodes that instances have.
func (s *joinedServer) reserved(ctx context.Context) (float64, error) {
	out, err := s.CLI(ctx, "node", "ls", "-o", "json")
	if err != nil {
		return 0, err
	}
	var nodes []v1.Node
	if err := json.Unmarshal([]byte(out), &nodes); err != nil {
		return 0, err
	}
	var has, all float64
	for _, n := range nodes {
		has, all = has+float64(n.Reserved.CPU), all+float64(n.Allocatable.CPU)
	}
	return has / all, nil
}

var growFlags = []string{"--grant-cpu", workerCPU, "--grant-memory", "1Gi", "--sandbox-pool", "0"}

// clusterGrowth measures a function that computes with one worker, two and three, as they join, and again as they leave.
func clusterGrowth(ctx context.Context, binary string) (figures []figure, err error) {
	s, err := startJoined(ctx, binary)
	if err != nil {
		return nil, err
	}
	defer func() { err = s.stopAfter(err) }()
	rates := make([][]float64, clusterWorkers+1)
	measure := func() error {
		n := len(s.workers)
		if _, err := s.ready(ctx, "busy", n); err != nil {
			return err
		}
		for range rounds {
			r, err := load(ctx, s.Public, workPath, loadOptions{conns: 2 * n, d: workPhase})
			if err != nil {
				return err
			}
			rates[n] = append(rates[n], r.RPS)
		}
		return nil
	}
	for range clusterWorkers {
		if err := s.join(ctx, binary, growFlags...); err != nil {
			return nil, err
		}
		if len(s.workers) == 1 {
			if err := s.deploy(ctx, "busy", "probe", workSpec); err != nil {
				return nil, err
			}
		}
		if err := measure(); err != nil {
			return nil, err
		}
	}
	for len(s.workers) > 1 {
		if err := s.leave(); err != nil {
			return nil, err
		}
		if err := measure(); err != nil {
			return nil, err
		}
	}
	one := median(rates[1])
	for n := 1; n <= clusterWorkers; n++ {
		figures = append(figures, beside("cluster", fmt.Sprintf("work_per_s_w%d", n), "1/s", median(rates[n]), "one-worker", one, len(rates[n])))
	}
	return figures, nil
}

// clusterPacking counts the instances of a function that wants more than fit on one worker, two and three.
func clusterPacking(ctx context.Context, binary string) (figures []figure, err error) {
	s, err := startJoined(ctx, binary)
	if err != nil {
		return nil, err
	}
	defer func() { err = s.stopAfter(err) }()
	one := 0
	for range clusterWorkers {
		if err := s.join(ctx, binary, growFlags...); err != nil {
			return nil, err
		}
		n := len(s.workers)
		if n == 1 {
			if err := s.deploy(ctx, "fill", "plain", fillSpec); err != nil {
				return nil, err
			}
		}
		fit, err := s.ready(ctx, "fill", 0)
		if err != nil {
			return nil, err
		}
		share, err := s.reserved(ctx)
		if err != nil {
			return nil, err
		}
		if n == 1 {
			one = fit
		}
		figures = append(figures, beside("cluster", fmt.Sprintf("instances_w%d", n), "1", float64(fit), "one-worker", float64(one), 1),
			figure{Bench: "cluster", Metric: fmt.Sprintf("cpu_reserved_w%d", n), Value: share, Unit: "1", samples: 1})
	}
	return figures, nil
}

// clusterHop measures calls to an instance on a worker that has joined, beside calls to one in the gateway's own process, and to the same one through two
// bare hops, with the processors kept awake as the gateway has them, where the kernel can be asked.
func clusterHop(ctx context.Context, binary string) (figures []figure, err error) {
	here, err := startServer(ctx, binary)
	if err != nil {
		return nil, err
	}
	defer func() { err = here.stopAfter(err) }()
	there, err := startJoined(ctx, binary)
	if err != nil {
		return nil, err
	}
	defer func() { err = there.stopAfter(err) }()
	if err := there.join(ctx, binary); err != nil {
		return nil, err
	}
	for _, s := range []*server{here, there.server} {
		if err := s.deploy(ctx, "warm", "plain", warmSpec); err != nil {
			return nil, err
		}
	}
	pid, err := there.instancePID(ctx, "warm")
	if err != nil {
		return nil, err
	}
	between, err := startHops(pid)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, between.stop()) }()
	bare := warmWay{name: "two-hops", addr: between.near.listener.Addr().String(), path: "/", brief: true, awake: canBeAwake()}
	m := measures{}
	if err := m.rounds(ctx, []warmWay{{name: "local", addr: here.Public, path: "/fn/warm"}, bare, {name: "remote", addr: there.Public, path: "/fn/warm"}}); err != nil {
		return nil, err
	}
	for _, w := range warmMetrics {
		for _, base := range []string{"local", bare.name} {
			figures = append(figures, beside("cluster", "hop_"+w.metric, w.unit, median(m["remote"][w.metric]), base, median(m[base][w.metric]), rounds))
		}
	}
	return figures, nil
}
