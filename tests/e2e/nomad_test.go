//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/gateway/client"
	"github.com/tatami-faas/tatami/tests/e2e/harness"
	"github.com/tatami-faas/tatami/tests/process"
)

// nomadJob is the job of the workers in these tests.
const nomadJob = "tatami-e2e-worker"

// nomadWorld is a server whose workers a Nomad job runs.
type nomadWorld struct {
	*fleet
	*nomadCluster
	dir  string
	name string
}

func newNomadWorld(t *testing.T) *nomadWorld {
	t.Helper()
	harness.Require(t)
	w := &nomadWorld{}
	w.dir, w.name = shortDir(t)
	w.nomadCluster = aNomad(t, w.dir)
	admin := os.Getenv("NOMAD_TOKEN")
	t.Setenv("NOMAD_TOKEN", restricted(t, w.nomad))
	addr, flags := harness.WorkersAt(t)
	flags = append(flags, "--no-worker", "--nomad-job", nomadJob, "--nomad-up-after", "300ms", "--nomad-down-after", "4s")
	w.fleet = &fleet{Server: harness.Start(t, harness.WithFlags(flags...)), t: t, addr: addr}
	t.Setenv("NOMAD_TOKEN", admin)
	t.Cleanup(func() { purge(t, w.nomad, nomadJob) })
	w.read(t)
	w.Must("nomad", "apply", "workers", "--worker-job", nomadJob, "--join", "nats://"+addr, "--join-token", filepath.Join(w.DataDir, "worker.token"),
		"--binary", harness.Binary(t), "--shared-nodes", "--worker-data-dir", w.dir+"/d-${NOMAD_SHORT_ALLOC_ID}", "--worker-run-dir", w.dir+"/r-${NOMAD_SHORT_ALLOC_ID}",
		"--worker-listen", "127.0.0.1:0", "--cpu-mhz", strconv.Itoa(compute(t, w.nomad)/5), "--memory", "1024", "--max", "3", "--kill-timeout", "30s", "--node-meta", "zone,tatami_no_such_key",
		"--worker-flag=--node-name="+w.name+"-${NOMAD_SHORT_ALLOC_ID}", "--worker-flag=--sandbox-pool=0", "--worker-flag=--log-level=debug", "--worker-flag=--log-format=text")
	return w
}

func (w *nomadWorld) allocs() []*api.AllocationListStub { return allocsOf(w.t, w.nomad, nomadJob) }

// read has Nomad itself read what `tatami nomad render` prints: it is the job that would be applied.
func (w *nomadWorld) read(t *testing.T) {
	t.Helper()
	if w.fake != nil {
		return
	}
	for _, what := range []string{"workers", "servers"} {
		read, err := w.nomad.Jobs().ParseHCL(w.Must("nomad", "render", what).Stdout, true)
		if err != nil {
			t.Errorf("nomad does not read the job of the %s: %v", what, err)
			continue
		}
		var made struct{ Job *api.Job }
		if err := json.Unmarshal([]byte(w.Must("nomad", "render", what, "-o", "json").Stdout), &made); err != nil {
			t.Fatal(err)
		}
		if got, want := tasksIn(read), tasksIn(made.Job); got != want {
			t.Errorf("nomad reads the job of the %s as\n%s\nand not as\n%s", what, got, want)
		}
	}
}

// tasksIn is what a job's tasks run, and when.
func tasksIn(j *api.Job) string {
	var out strings.Builder
	for _, g := range j.TaskGroups {
		for _, task := range g.Tasks {
			hook := "main"
			if task.Lifecycle != nil {
				hook = task.Lifecycle.Hook
			}
			fmt.Fprintln(&out, *g.Name, *g.Count, task.Name, task.Driver, hook, task.Config["command"], task.Config["args"])
			for _, tmpl := range task.Templates {
				fmt.Fprintln(&out, *tmpl.DestPath, strings.TrimSpace(*tmpl.EmbeddedTmpl))
			}
		}
	}
	return out.String()
}

// until waits until so many workers run, each with a node that takes instances, and so many instances of the function are ready on them.
func (w *nomadWorld) until(workers int, fn string, ready int) {
	w.t.Helper()
	what := func() string {
		return fmt.Sprintf("%d workers with %d instances of %s: %v; %v", workers, ready, fn, w.states(), w.on(fn))
	}
	deadline := time.Now().Add(patience * time.Minute)
	for {
		if w.settled(workers) && total(w.on(fn)) == ready {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("not in time: %s", what())
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func (w *nomadWorld) settled(workers int) bool {
	allocs := w.allocs()
	nodes := w.nodes()
	for _, a := range allocs {
		if n, there := nodes[w.nodeOf(a)]; !there || n.State != "ready" || a.DesiredStatus != api.AllocDesiredStatusRun {
			return false
		}
	}
	return len(allocs) == workers
}

func (w *nomadWorld) nodeOf(a *api.AllocationListStub) string { return w.name + "-" + a.ID[:8] }

func (w *nomadWorld) states() (out []string) {
	for name, n := range w.nodes() {
		out = append(out, name+" "+n.State+" "+n.Reason)
	}
	for _, a := range w.allocs() {
		out = append(out, a.Name+" "+a.DesiredStatus+" "+a.ClientStatus)
	}
	return out
}

// require deploys the function with so many instances, of which a worker holds two.
func (w *nomadWorld) require(n int) {
	w.t.Helper()
	w.Deploy("pool", "probe", fmt.Sprintf("memory: 200Mi\nephemeral: 1Mi\ncpu: 50m\nconcurrency: 8\nscale: {min: %d, max: %[1]d, keepAlive: 1s}\n", n))
}

// unharmed fails the test if a request failed.
func unharmed(t *testing.T, what string, tr *traffic) {
	t.Helper()
	failed := tr.end()
	for _, f := range failed[:min(len(failed), 5)] {
		t.Errorf("%s: %s", what, f.what)
	}
}

// A server finds its workers in Nomad: they join with what Nomad gave them, become more and fewer with what functions need, come back after a crash, leave
// a node that is drained before they are stopped, and are replaced when their machine is lost. No request is harmed by what is planned.
func TestNomad(t *testing.T) {
	w := newNomadWorld(t)
	eventually(t, 20*time.Second, "the first worker takes instances", func() bool { return w.settled(1) })
	w.joined(t)
	w.require(5)
	w.until(3, "pool", 5)
	w.shown(t)
	w.crash(t)
	w.drain(t)
	w.shrink(t)
	w.loss(t)
}

// joined checks that a worker offers what Nomad gave its task, and no more.
func (w *nomadWorld) joined(t *testing.T) {
	a := w.allocs()[0]
	n := w.nodes()[w.nodeOf(a)]
	machine, _, err := w.nomad.Nodes().Info(a.NodeID, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, there := n.Labels["tatami_no_such_key"]; there || n.Labels["zone"] != machine.Meta["zone"] {
		t.Errorf("the worker's labels are %v, its node's meta %v", n.Labels, machine.Meta)
	}
	if n.Capacity.Memory != 1024<<20 || n.Allocatable.Memory != 512<<20 || n.Capacity.CPU < 1 || n.Capacity.CPU >= int64(processors(t))*1000 {
		t.Errorf("the worker offers %+v of %+v", n.Allocatable, n.Capacity)
	}
	limit, err := filepath.Glob("/sys/fs/cgroup/memory/tatami-" + n.Name + "-*/memory.limit_in_bytes")
	if v2, _ := filepath.Glob("/sys/fs/cgroup/tatami-" + n.Name + "-*/memory.max"); len(v2) > 0 {
		limit = v2
	}
	if err != nil || len(limit) != 1 {
		t.Fatalf("the cgroup above its instances: %q, %v", limit, err)
	}
	text, err := os.ReadFile(limit[0])
	var bytes int64
	if _, bad := fmt.Sscan(string(text), &bytes); err != nil || bad != nil || bytes < 512<<20 || bytes > 1024<<20 {
		t.Errorf("the cgroup above its instances is limited to %s: %v", text, err)
	}
}

// processors is how many processors the machine has, as its own node would say.
func processors(t *testing.T) int {
	t.Helper()
	entries, err := filepath.Glob("/sys/devices/system/cpu/cpu[0-9]*")
	if err != nil || len(entries) == 0 {
		t.Fatalf("processors: %v", err)
	}
	return len(entries)
}

// shown checks what the control API says of the pool.
func (w *nomadWorld) shown(t *testing.T) {
	t.Helper()
	c, err := client.New("unix://" + filepath.Join(w.RunDir, "control.sock"))
	if err != nil {
		t.Fatal(err)
	}
	var p *v1.Pool
	eventually(t, 20*time.Second, "all that was wanted runs", func() bool {
		p, err = c.Pool(t.Context())
		return err == nil && p.Running == 3 && p.Lacking == 0
	})
	if p.Count != 3 || p.Wanted != 3 || p.Resized == nil || p.Resized.To != 3 || p.Resized.Reason == "" {
		t.Errorf("the pool is shown as %+v, resized %+v", p, p.Resized)
	}
}

// crash kills a worker with its shims, as Nomad's cgroup does; Nomad starts it again, and its instances are there again.
func (w *nomadWorld) crash(t *testing.T) {
	t.Helper()
	a := w.allocs()[2]
	node := w.nodes()[w.nodeOf(a)]
	if err := w.nomad.Allocations().Signal(&api.Allocation{ID: a.ID}, nil, "worker", "SIGKILL"); err != nil {
		t.Fatal(err)
	}
	// A request that its instance has when it is killed is lost with it; the others serve on.
	eventually(t, 10*time.Second, "it is served beside a crash", func() bool {
		resp, _ := w.Get("/fn/pool/")
		return resp.StatusCode == http.StatusOK
	})
	eventually(t, 20*time.Second, "its instances are missed or it is back", func() bool {
		n := w.nodes()[node.Name]
		return n.State != "ready" || n.LastSeen.After(node.LastSeen.Add(3*time.Second))
	})
	w.until(3, "pool", 5)
	if again := w.nodes()[node.Name]; again.ID != node.ID {
		t.Errorf("it came back as %s and not as %s", again.ID, node.ID)
	}
}

// drain has a Nomad node drained under load: its instances are ready elsewhere before they end.
func (w *nomadWorld) drain(t *testing.T) {
	t.Helper()
	if len(readyNodes(t, w.nomad)) < 2 {
		t.Log("this Nomad has one node, which cannot be drained to another")
		return
	}
	a := w.allocs()[0]
	load := w.load("pool", 2)
	load.after(t, 20)
	if _, err := w.nomad.Nodes().UpdateDrain(a.NodeID, &api.DrainSpec{Deadline: 5 * time.Minute}, false, nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "the allocation has another place", func() bool {
		return !slices.ContainsFunc(w.allocs(), func(b *api.AllocationListStub) bool { return b.ID == a.ID })
	})
	w.until(3, "pool", 5)
	load.after(t, 20)
	unharmed(t, "a drain", load)
	eventually(t, 20*time.Second, "the worker that was drained has left, and is not lost", func() bool { return w.nodes()[w.nodeOf(a)].State == "left" })
	if _, err := w.nomad.Nodes().UpdateDrain(a.NodeID, nil, true, nil); err != nil {
		t.Fatal(err)
	}
}

// shrink has fewer instances, and so fewer workers: the last ones go, one after the other, empty.
func (w *nomadWorld) shrink(t *testing.T) {
	t.Helper()
	load := w.load("pool", 2)
	load.after(t, 20)
	w.require(1)
	w.until(1, "pool", 1)
	load.after(t, 20)
	unharmed(t, "fewer workers", load)
	if a := w.allocs()[0]; !strings.HasSuffix(a.Name, "[0]") {
		t.Errorf("%s is left, not the first", a.Name)
	}
	job, _, err := w.nomad.Jobs().Info(nomadJob, nil)
	if err != nil || *job.TaskGroups[0].Count != 1 {
		t.Errorf("the job has %v workers: %v", job, err)
	}
}

// loss has the machine of the last worker go. What comes back of it later is no node of the pool, and leaves nothing.
func (w *nomadWorld) loss(t *testing.T) {
	t.Helper()
	if w.lose == nil {
		t.Log("a machine of this Nomad cannot be taken away from here")
		return
	}
	a := w.allocs()[0]
	lost := w.nodes()[w.nodeOf(a)]
	w.lose(a.NodeID)
	eventually(t, 30*time.Second, "another worker serves", func() bool {
		resp, _, err := w.TryDo("GET", "/fn/pool/", "", nil)
		return err == nil && resp.StatusCode == http.StatusOK && w.allocs()[0].ID != a.ID
	})
	w.until(1, "pool", 1)
	// The machine's containers outlive all that was killed: the next worker there ends them.
	back, err := process.Start(t.Context(), process.Config{Binary: harness.Binary(t), Args: []string{
		"worker", "--join", "nats://" + w.addr, "--token-file", filepath.Join(w.DataDir, "worker.token"), "--data-dir", w.dir + "/d-" + a.ID[:8],
		"--run-dir", w.dir + "/r-" + a.ID[:8], "--node-name", lost.Name, "--grant-cpu", "100m", "--grant-memory", "512Mi", "--sandbox-pool", "0",
	}})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "the machine is back", func() bool { n := w.nodes()[lost.Name]; return n.State == "ready" && n.ID == lost.ID })
	if err := back.End(syscall.SIGINT); err != nil {
		t.Error(err)
	}
}
