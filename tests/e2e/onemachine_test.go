//go:build e2e

package e2e

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/tests/e2e/harness"
	"github.com/tatami-faas/tatami/tests/process"
)

// A cluster becomes one machine again, with what it held. A worker that knows the machine's address comes by itself, and takes its commands.
func TestAClusterBecomesOneMachine(t *testing.T) {
	c := newCluster(t, 1)
	f := &fleet{Server: c.servers[1], t: t, workers: c.workers}
	eventually(t, 60*time.Second, "the worker shows", func() bool { return len(f.nodes()) == 1 })
	c.servers[1].Deploy("kept", "probe", "cpu: 50m\nmemory: 64Mi\nscale: {max: 1, keepAlive: 1s}\n")
	ended, err := c.accept(c.servers[1], "kept")
	if err != nil {
		t.Fatal(err)
	}
	c.succeeded(c.servers[2], ended)
	resp, body := c.servers[1].Do("POST", "/async/kept/echo", "x", http.Header{"Tatami-Delay": {"20s"}})
	waiting := resp.Header.Get("Location")
	if resp.StatusCode != http.StatusAccepted {
		t.Fatalf("%s %s", resp.Status, body)
	}

	stays, to := c.servers[0], filepath.Join(t.TempDir(), "alone")
	stays.Terminate()
	var r process.Result
	c.nets[0].Must(func() (err error) {
		args := append([]string{"cluster", "export", "--to", to, "--data-dir", stays.DataDir, "--run-dir", stays.RunDir}, stays.Flags...)
		r, err = process.CLI(t.Context(), harness.Binary(t), t.TempDir(), "", args...)
		return err
	})
	if r.Exit != 0 || !strings.Contains(r.Stdout, "are in "+to) {
		t.Fatalf("%+v", r)
	}
	for _, s := range c.servers[1:] {
		s.Terminate()
	}
	alone := harness.Start(t, harness.WithNetwork(c.nets[0]), harness.WithDataDir(to), func(s *harness.Server) {
		s.Public, s.Control = harness.MachineAddr(1)+":8080", harness.MachineAddr(1)+":8081"
	}, harness.WithFlags("--nats-listen", harness.MachineAddr(1)+":4222", "--no-worker"))
	f.Server = alone
	eventually(t, 60*time.Second, "the worker is back", func() bool { return f.nodes()[c.workers[0].Name].State == "ready" })
	if resp, body := alone.Get("/fn/kept/pid"); resp.StatusCode != http.StatusOK {
		t.Errorf("%s %s", resp.Status, body)
	}
	c.succeeded(alone, ended)
	c.succeeded(alone, waiting)
}
