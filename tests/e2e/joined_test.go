//go:build e2e

package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/tests/e2e/harness"
)

// everywhere runs a test with the instances in the server's own process, and again with them on a worker that joined it.
func everywhere(t *testing.T, test func(*testing.T, *harness.Server)) {
	t.Run("here", func(t *testing.T) { test(t, harness.Start(t, harness.WithFlags("--domain", "fn.test"))) })
	t.Run("joined", func(t *testing.T) {
		addr, flags := harness.WorkersAt(t)
		s := harness.Start(t, harness.WithFlags(append(flags, "--domain", "fn.test", "--no-worker")...))
		harness.Join(t, s, addr)
		eventually(t, 10*time.Second, "the worker shows", func() bool { return len((&fleet{Server: s, t: t}).nodes()) == 1 })
		test(t, s)
	})
}

// fleet is a server without a worker of its own, and workers that joined it.
type fleet struct {
	*harness.Server
	t       *testing.T
	addr    string
	workers []*harness.Worker
}

// newFleet runs a worker for each grant of memory, in MiB; each gets enough of the processor.
func newFleet(t *testing.T, grants ...int) *fleet {
	t.Helper()
	var workers [][]string
	for _, mib := range grants {
		workers = append(workers, []string{"--grant-memory", fmt.Sprintf("%dMi", mib), "--label", fmt.Sprintf("grant=%d", mib)})
	}
	return newFleetOf(t, nil, workers...)
}

// newFleetOf runs a server with flags, and a worker for each list of flags; each gets enough of the processor, and keeps no sandboxes that
// wait: what lies on its disk is counted.
func newFleetOf(t *testing.T, server []string, workers ...[]string) *fleet {
	t.Helper()
	addr, flags := harness.WorkersAt(t)
	f := &fleet{Server: harness.Start(t, harness.WithFlags(append(append(flags, "--no-worker"), server...)...)), t: t, addr: addr}
	for _, flags := range workers {
		f.workers = append(f.workers, harness.Join(t, f.Server, addr, append([]string{"--grant-cpu", "1", "--sandbox-pool", "0"}, flags...)...))
	}
	eventually(t, 10*time.Second, "every worker shows", func() bool { return len(f.nodes()) == len(workers) })
	return f
}

// nodes lists the nodes by name.
func (f *fleet) nodes() map[string]v1.Node {
	f.t.Helper()
	var all []v1.Node
	list(f.t, f.Server, &all, "node", "ls")
	out := map[string]v1.Node{}
	for _, n := range all {
		out[n.Name] = n
	}
	return out
}

// on counts a function's ready instances by the name of their node.
func (f *fleet) on(fn string) map[string]int {
	f.t.Helper()
	out := map[string]int{}
	for _, i := range instances(f.t, f.Server, fn) {
		if i.State.Serves() {
			out[i.NodeName]++
		}
	}
	return out
}

func total(counts map[string]int) int {
	n := 0
	for _, c := range counts {
		n += c
	}
	return n
}

// callAll makes as many requests at once as there are instances of concurrency 1, which go on until every one of them has one.
func (f *fleet) callAll(fn string, n int) {
	f.t.Helper()
	var calls []*stream
	for range n {
		s := f.stream(fn)
		s.more()
		calls = append(calls, s)
	}
	eventually(f.t, 20*time.Second, "every instance is used", func() bool {
		used := 0
		for _, i := range instances(f.t, f.Server, fn) {
			used += min(i.Held, 1)
		}
		return used == n
	})
	for _, s := range calls {
		s.body.Close()
	}
	eventually(f.t, 20*time.Second, "none is used any more", func() bool { return held(f.t, f.Server, fn) == 0 })
}

// traffic is requests under way, one after the other from each of several clients.
type traffic struct {
	wg   sync.WaitGroup
	stop chan struct{}

	mu     sync.Mutex
	done   int
	failed []failure
}

type failure struct {
	began time.Time
	what  string
}

// load calls the function until end.
func (f *fleet) load(fn string, clients int) *traffic {
	tr := &traffic{stop: make(chan struct{})}
	for range clients {
		tr.wg.Go(func() {
			for {
				select {
				case <-tr.stop:
					return
				default:
				}
				began := time.Now()
				resp, body, err := f.TryDo("GET", "/fn/"+fn+"/sleep?ms=20", "", nil)
				tr.mu.Lock()
				tr.done++
				if err != nil || resp.StatusCode != http.StatusOK {
					tr.failed = append(tr.failed, failure{began, fmt.Sprint(err, resp, body)})
				}
				tr.mu.Unlock()
			}
		})
	}
	return tr
}

// after waits until so many more requests have ended.
func (tr *traffic) after(t *testing.T, n int) {
	t.Helper()
	count := func() int {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		return tr.done
	}
	from := count()
	eventually(t, time.Minute, "requests go on", func() bool { return count() >= from+n })
}

// end stops the clients and returns the requests that failed.
func (tr *traffic) end() []failure {
	close(tr.stop)
	tr.wg.Wait()
	return tr.failed
}

// Three workers with different grants: functions are placed on all of them, answer from each, are redeployed without loss; one that is
// killed is replaced, with no harm to what it was not serving; it comes back to its containers, and nothing is left in the end.
func TestJoinedWorkers(t *testing.T) {
	f := newFleet(t, 256, 384, 640)
	// 80 MiB each: three, four and eight fit.
	const spec = "cpu: 50m\nmemory: 64Mi\nephemeral: 16Mi\nconcurrency: 1\nscale: {min: 9, max: 12, keepAlive: 2s}\n"
	const want = 9
	f.Deploy("wide", "probe", spec)
	settled := func(what string) {
		t.Helper()
		eventually(t, 60*time.Second, what, func() bool { return total(f.on("wide")) == want && len(instances(t, f.Server, "wide")) == want })
	}
	settled("all instances are ready")
	for name, n := range f.nodes() {
		if n.State != "ready" || n.Instances == 0 || n.Reserved.Memory > n.Allocatable.Memory || n.Labels["grant"] != fmt.Sprint(n.Allocatable.Memory/functions.MiB) {
			t.Errorf("%s: %+v", name, n)
		}
	}
	f.callAll("wide", want)
	settled("what was started for the calls is gone")
	for _, i := range instances(t, f.Server, "wide") {
		if n := strings.Count(f.Must("logs", "wide", "--instance", string(i.ID)).Stdout, "probe listens on port"); n != 1 {
			t.Errorf("the log has %d lines of how %s on %s began", n, i.ID, i.NodeName)
		}
		if r := f.CLI("inst", "exec", string(i.ID), "--", "/function"); r.Exit != 1 || !strings.Contains(r.Stderr, "address already in use") {
			t.Errorf("exec on %s ended with %d: %q %q", i.NodeName, r.Exit, r.Stdout, r.Stderr)
		}
	}

	tr := f.load("wide", 6)
	tr.after(t, 50)
	f.Deploy("wide", "probe", spec+"env: {VERSION: b}\n")
	settled("the new revision's instances are ready")
	tr.after(t, 50)
	for _, x := range tr.end() {
		t.Errorf("failed during a redeploy: %s", x.what)
	}

	tr = f.load("wide", 6)
	tr.after(t, 50)
	// Without either of the smaller ones there is room for all.
	victim, before := f.workers[0], f.on("wide")
	if w := f.workers[1]; before[w.Name] > before[victim.Name] {
		victim = w
	}
	if before[victim.Name] == 0 {
		t.Fatalf("nothing to lose: %v", before)
	}
	victim.Kill()
	killed := time.Now()
	eventually(t, 30*time.Second, "what was lost is replaced elsewhere", func() bool {
		on := f.on("wide")
		return on[victim.Name] == 0 && total(on) == want
	})
	t.Logf("%d instances of the killed worker were replaced after %s", before[victim.Name], time.Since(killed).Round(100*time.Millisecond))
	tr.after(t, 50)

	// Its containers have run on; it finds them, and what is too much goes.
	victim.Launch()
	settled("what is too much goes")
	tr.after(t, 50)
	lost := tr.end()
	for _, x := range lost {
		if x.began.After(killed) {
			t.Errorf("failed although it began after the kill: %s", x.what)
		}
	}
	if len(lost) > before[victim.Name] {
		t.Errorf("%d requests failed, but only %d could run on the killed worker", len(lost), before[victim.Name])
	}
	for _, w := range f.workers {
		eventually(t, 10*time.Second, w.Name+" holds what it is said to", func() bool { return sandboxes(t, w) == f.nodes()[w.Name].Instances })
	}
	eventually(t, 10*time.Second, "the worker that came back is ready", func() bool { return f.nodes()[victim.Name].State == "ready" })
}

// sandboxes counts what a worker has on its disk.
func sandboxes(t *testing.T, w *harness.Worker) int {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(w.RunDir, "sandboxes"))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// A worker that is killed and started again at once has the same instances, and the same processes; so has one whose server was away.
func TestJoinedWorkerComesBack(t *testing.T) {
	f := newFleet(t, 512)
	w := f.workers[0]
	f.Deploy("steady", "probe", "cpu: 50m\nmemory: 64Mi\nscale: {min: 2, max: 2, keepAlive: 10m}\n")
	ready := func() map[functions.InstanceID]int {
		out := map[functions.InstanceID]int{}
		for _, i := range instances(t, f.Server, "steady") {
			if i.State.Serves() {
				out[i.ID] = i.PID
			}
		}
		return out
	}
	eventually(t, 30*time.Second, "both are ready", func() bool { return len(ready()) == 2 })
	before := ready()
	same := func(what string) {
		t.Helper()
		eventually(t, 30*time.Second, what+": the same instances are ready", func() bool {
			now := ready()
			for id, pid := range before {
				if now[id] != pid {
					return false
				}
			}
			return len(now) == len(before)
		})
		if resp, body := f.Get("/fn/steady/pid"); resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %s %s", what, resp.Status, body)
		}
	}
	w.Kill()
	w.Launch()
	same("after a kill of the worker")
	f.Kill()
	f.Launch()
	same("after a kill of the server")

	for verb, args := range map[string][]string{
		"worker": {"up", "--data-dir", w.DataDir, "--run-dir", filepath.Dir(w.RunDir) + "/x"},
		"up":     {"worker", "--join", "nats://" + f.addr, "--token-file", filepath.Join(f.DataDir, "worker.token"), "--data-dir", f.DataDir, "--run-dir", filepath.Dir(w.RunDir) + "/x"},
	} {
		w.Terminate()
		f.Terminate()
		if r := f.CLI(args...); r.Exit != 1 || !strings.Contains(r.Stderr, "run: tatami "+verb+" --data-dir") {
			t.Errorf("%v ended with %d: %s", args[0], r.Exit, r.Stderr)
		}
	}
}
