//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/tatami-faas/tatami/tests/e2e/harness"
	"github.com/tatami-faas/tatami/tests/process"
)

// The jobs of the servers in these tests, and of their workers.
const (
	nomadServerJob = "tatami-e2e-server"
	nomadTheirJob  = "tatami-e2e-server-worker"
)

// serverWorld is three servers that a Nomad job runs, and a worker that another one does.
type serverWorld struct {
	*nomadCluster
	t         *testing.T
	dir, name string
	// at are the servers' addresses.
	at []string
}

// newServerWorld is one in which nothing runs yet. The test is skipped where the Nomad of NOMAD_ADDR is not made for it.
func newServerWorld(t *testing.T) *serverWorld {
	t.Helper()
	harness.Require(t)
	w := &serverWorld{t: t}
	w.dir, w.name = shortDir(t)
	w.nomadCluster = aNomad(t, w.dir)
	w.at = serverNodes(t, w.nomadCluster)
	if len(w.at) < 3 {
		say := t.Fatalf
		if os.Getenv("NOMAD_ADDR") != "" {
			say = t.Skipf
		}
		say("servers take three nodes with the meta tatami_server = \"true\", each with an address of its own on this machine; there are %v", w.at)
	}
	t.Cleanup(func() {
		for _, job := range []string{nomadTheirJob, nomadServerJob} {
			purge(t, w.nomad, job)
		}
		dropPolicy(t, w.nomad, nomadServerJob)
	})
	return w
}

// serverNodes are the addresses of the nodes that may run servers, as far as they are addresses of this machine.
func serverNodes(t *testing.T, c *nomadCluster) (at []string) {
	t.Helper()
	for _, stub := range readyNodes(t, c.nomad) {
		n, _, err := c.nomad.Nodes().Info(stub.ID, nil)
		if err != nil {
			t.Fatal(err)
		}
		addr := n.Attributes["unique.network.ip-address"]
		if l, err := net.Listen("tcp", net.JoinHostPort(addr, "0")); err != nil || l.Close() != nil || n.Meta["tatami_server"] != "true" || slices.Contains(at, addr) {
			continue
		}
		at = append(at, addr)
	}
	slices.Sort(at)
	return at
}

// tatami runs the program as somebody on the machine of a server does; n is the server's place among them.
func (w *serverWorld) tatami(n int, args ...string) process.Result {
	w.t.Helper()
	r, err := process.CLI(w.t.Context(), harness.Binary(w.t), w.place(n)+"/run", "", args...)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func (w *serverWorld) must(n int, args ...string) {
	w.t.Helper()
	if r := w.tatami(n, args...); r.Exit != 0 {
		w.t.Fatalf("tatami %s ended with %d: %s", args[0], r.Exit, r.Stderr)
	}
}

// place is where a server's directories are.
func (w *serverWorld) place(n int) string { return w.dir + "/s" + w.at[n] }

// get asks a server.
func (w *serverWorld) get(n int, path string) bool {
	resp, err := http.Get("http://" + w.at[n] + ":8080" + path)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// servers makes the job of the servers run a program, or changes it to.
func (w *serverWorld) servers(binary string) {
	w.t.Helper()
	const address = "${attr.unique.network.ip-address}"
	w.must(0, "nomad", "apply", "servers", "--server-job", nomadServerJob, "--worker-job", nomadTheirJob, "--cluster-secret", filepath.Join(w.dir, "secret"), "--binary", binary,
		"--server-public", address, "--server-data-dir", w.dir+"/s"+address+"/data", "--server-run-dir", w.dir+"/s"+address+"/run")
}

// Servers that Nomad starts find each other as a service of it, by the socket in their tasks; and so do the workers find them.
func TestServersInNomad(t *testing.T) {
	w := newServerWorld(t)
	w.must(0, "cluster", "secret", "--out", filepath.Join(w.dir, "secret"))
	w.servers(harness.Binary(t))
	for n := range w.at {
		eventually(t, time.Minute, fmt.Sprintf("server %d is ready", n), func() bool { return w.get(n, "/readyz") })
	}
	w.must(0, "nomad", "apply", "workers", "--server-job", nomadServerJob, "--worker-job", nomadTheirJob, "--join-token", w.place(0)+"/data/worker.token", "--binary", harness.Binary(t),
		"--worker-data-dir", w.dir+"/w/data", "--worker-run-dir", w.dir+"/w/run", "--cpu-mhz", strconv.Itoa(compute(t, w.nomad)/3), "--memory", "1024", "--max", "1",
		"--worker-flag=--node-name="+w.name+"-worker", "--worker-flag=--sandbox-pool=0")
	eventually(t, 30*time.Second, "the worker is there", func() bool { return strings.Contains(w.tatami(1, "node", "ls").Stdout, "ready") })
	w.must(1, "deploy", "--name", "found", filepath.Join(harness.Root(t), "functions", "examples", "probe"))
	for n := range w.at {
		eventually(t, 30*time.Second, fmt.Sprintf("server %d calls it", n), func() bool { return w.get(n, "/fn/found/pid") })
	}
	w.upgrade()
}

// upgrade has all servers run another program, one after the other, under load: whoever asks those that Nomad's service lists is answered all the time.
func (w *serverWorld) upgrade() {
	w.t.Helper()
	program, err := os.ReadFile(harness.Binary(w.t))
	if err != nil {
		w.t.Fatal(err)
	}
	next := filepath.Join(w.dir, "tatami")
	if err := os.WriteFile(next, program, 0o755); err != nil {
		w.t.Fatal(err)
	}
	stop, failed := make(chan struct{}), make(chan []string, 1)
	answered := &atomic.Int64{}
	go func() { failed <- w.ask(stop, answered) }()
	eventually(w.t, 10*time.Second, "calls are answered", func() bool { return answered.Load() > 20 })
	w.servers(next)
	eventually(w.t, 2*time.Minute, "all servers run the other program", func() bool {
		d, _, err := w.nomad.Jobs().LatestDeployment(nomadServerJob, nil)
		return err == nil && d != nil && d.JobVersion == 1 && d.Status == api.DeploymentStatusSuccessful
	})
	for n := range w.at {
		eventually(w.t, 30*time.Second, fmt.Sprintf("server %d answers", n), func() bool { return w.get(n, "/fn/found/pid") })
	}
	close(stop)
	for _, f := range <-failed {
		w.t.Errorf("while the servers changed: %s", f)
	}
	w.t.Logf("%d calls were answered while the servers changed", answered.Load())
}

// ask calls the function until stop is closed, each time at a server that Nomad's service lists, or, where nobody listens there, at the next one. It returns
// the first few that failed.
func (w *serverWorld) ask(stop <-chan struct{}, answered *atomic.Int64) (failed []string) {
	for {
		select {
		case <-stop:
			return failed
		default:
		}
		if what := w.askOnce(); what == "" {
			answered.Add(1)
		} else if len(failed) < 5 {
			failed = append(failed, what)
		}
	}
}

func (w *serverWorld) askOnce() (failed string) {
	listed, _, err := w.nomad.Services().Get("tatami-http", nil)
	if err != nil {
		return err.Error()
	}
	rand.Shuffle(len(listed), func(i, j int) { listed[i], listed[j] = listed[j], listed[i] })
	failed = "no server is listed"
	for _, at := range listed {
		resp, err := http.Get(fmt.Sprintf("http://%s:%d/fn/found/pid", at.Address, at.Port))
		var op *net.OpError
		switch {
		case err == nil:
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return ""
			}
			return at.Address + ": " + resp.Status
		case errors.As(err, &op) && op.Op == "dial":
			failed = err.Error()
		default:
			return err.Error()
		}
	}
	return failed
}
