package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/gateway/client"
)

const (
	// deployers is how many functions are deployed at once.
	deployers = 3
	burstSize = 100
)

var (
	// coldFleet is how many functions are deployed for bursts and for the open loop, sustainTime the loop's length.
	coldFleet   = 300
	sustainTime = time.Minute
)

// coldServer is a server with many functions at zero.
type coldServer struct {
	server  *server
	control *client.Client
}

func newColdServer(s *server) (*coldServer, error) {
	control, err := client.New("unix://" + filepath.Join(s.RunDir, "control.sock"))
	return &coldServer{s, control}, err
}

func fleetName(i int) string { return fmt.Sprintf("f%d", i) }

// deploy deploys one binary under many names.
func (f *coldServer) deploy(ctx context.Context, binary string) error {
	begun := time.Now()
	if err := f.deployFirst(ctx, binary); err != nil {
		return err
	}
	first, err := f.control.Function(ctx, functions.Ref{Namespace: functions.DefaultNamespace, Name: fleetName(0)})
	if err != nil {
		return err
	}
	all, ctx := errgroup.WithContext(ctx)
	all.SetLimit(deployers)
	for i := range coldFleet {
		all.Go(func() error {
			ref := functions.Ref{Namespace: functions.DefaultNamespace, Name: fleetName(i)}
			_, err := f.control.Deploy(ctx, ref, v1.DeployRequest{Digest: first.Current.Artifact.Digest, Config: first.Current.Config})
			return err
		})
	}
	if err := all.Wait(); err != nil {
		return err
	}
	fmt.Printf("  cold: %d functions deployed in %s\n", coldFleet, time.Since(begun).Round(time.Second))
	return nil
}

// deployFirst deploys the function that the others are like.
func (f *coldServer) deployFirst(ctx context.Context, binary string) error {
	file := filepath.Join(f.server.Dir, "first.yaml")
	// Small, so that as many fit on the machine at once as the open loop needs.
	text := fmt.Sprintf("name: %s\nsource: %s\nscale: {keepAlive: 1s}\ncpu: 10m\nmemory: 32Mi\nephemeral: 8Mi\n", fleetName(0), binary)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return err
	}
	_, err := f.server.CLI(ctx, "deploy", "--file", file)
	return err
}

// settle waits until no instance exists in any state and the pool is as full as it shall be, and returns what waits in it.
func (f *coldServer) settle(ctx context.Context) (waiting float64, err error) {
	for begun := time.Now(); time.Since(begun) < time.Minute; {
		all, err := f.control.Instances(ctx, client.InstanceFilter{})
		if err != nil {
			return 0, err
		}
		left := slices.ContainsFunc(all, func(i v1.Instance) bool { return !i.State.Gone() })
		m, err := f.server.metrics(ctx)
		if err != nil {
			return 0, err
		}
		waiting := m[poolWaiting]
		if !left && waiting >= m[`tatami_sandbox_pool{state="wanted"}`] {
			return waiting, nil
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	return 0, fmt.Errorf("instances are still there, or the pool is not full, after a minute")
}

// burst calls functions at zero, all at once, and returns how long it took until the last had answered.
func (f *coldServer) burst(ctx context.Context) (time.Duration, error) {
	if _, err := f.settle(ctx); err != nil {
		return 0, err
	}
	time.Sleep(100 * time.Millisecond)
	var mu sync.Mutex
	paths := map[string]int{}
	begun := time.Now()
	var all errgroup.Group
	for i := range min(burstSize, coldFleet) {
		all.Go(func() error {
			_, header, err := f.server.get(ctx, "/fn/"+fleetName(i))
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			paths[pathOf(header)]++
			return nil
		})
	}
	err := all.Wait()
	took := time.Since(begun)
	fmt.Printf("  cold: burst of %d in %.0f ms, start paths %v\n", min(burstSize, coldFleet), ms(took), paths)
	return took, err
}

// keptMemory is what each instance that idles takes of the machine's memory, in bytes. Its sandbox was taken from the pool, which is filled again.
func (f *coldServer) keptMemory(ctx context.Context) (float64, error) {
	if _, err := f.settle(ctx); err != nil {
		return 0, err
	}
	before := available()
	var all errgroup.Group
	for i := range min(burstSize, coldFleet) {
		all.Go(func() error { return second3(f.server.get(ctx, "/fn/"+fleetName(i))) })
	}
	if err := all.Wait(); err != nil {
		return 0, err
	}
	// Within the instances' keep-alive of one second.
	time.Sleep(700 * time.Millisecond)
	return max(0, before-available()) / float64(min(burstSize, coldFleet)), nil
}

func second3[A, B any](_ A, _ B, err error) error { return err }

// pathOf reads the start path out of an answer; empty for a warm one.
func pathOf(header http.Header) string {
	if m := startPath.FindStringSubmatch(header.Get("Server-Timing")); m != nil {
		return m[1]
	}
	return ""
}

// poolWaiting is the metric of the sandboxes of the pool that wait.
const poolWaiting = `tatami_sandbox_pool{state="waiting"}`

// awaitSandbox waits until one of what the metric counts waits for a function, for a minute at most.
func (s *server) awaitSandbox(ctx context.Context, metric string) error {
	for begun := time.Now(); time.Since(begun) < time.Minute; {
		m, err := s.metrics(ctx)
		if err != nil || m[metric] > 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	return fmt.Errorf("no sandbox made ahead waits after a minute")
}

// metrics reads the server's metrics over its control socket.
func (s *server) metrics(ctx context.Context) (map[string]float64, error) {
	hc := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(s.RunDir, "control.sock"))
	}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://control/metrics", nil)
	if err != nil {
		return nil, err
	}
	resp, err := hc.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	out := map[string]float64{}
	for sc := bufio.NewScanner(resp.Body); sc.Scan(); {
		name, value, ok := strings.Cut(sc.Text(), " ")
		if v, err := strconv.ParseFloat(value, 64); ok && err == nil && !strings.HasPrefix(name, "#") {
			out[name] = v
		}
	}
	return out, nil
}

// busyTime is the time that all processors have worked since the machine started.
func busyTime() time.Duration {
	raw, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := bytes.Cut(raw, []byte{'\n'})
	var sum int64
	for i, field := range strings.Fields(string(line)) {
		// user, nice, system; then idle and waiting for a disk; then interrupts.
		if n, err := strconv.ParseInt(field, 10, 64); err == nil && i != 4 && i != 5 && i <= 7 {
			sum += n
		}
	}
	const tick = 10 * time.Millisecond
	return time.Duration(sum) * tick
}

// available is the memory in bytes that could be had.
func available() float64 {
	raw, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(raw)) {
		if v, ok := strings.CutPrefix(line, "MemAvailable:"); ok {
			kb, _ := strconv.ParseFloat(strings.Fields(v)[0], 64)
			return kb * 1024
		}
	}
	return 0
}
