//go:build e2e

package harness

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tatami-faas/tatami/tests/process"
)

// Worker is one `tatami worker` with directories of its own.
type Worker struct {
	// Name is its node's name.
	Name string
	// DataDir and RunDir are its directories; they stay over restarts.
	DataDir, RunDir string
	// Flags are given beside the harness's own.
	Flags []string

	restartable
}

// WorkersAt returns the flags that let workers join a server, on an address of their own.
func WorkersAt(t testing.TB) (addr string, flags []string) {
	t.Helper()
	addr = freeAddr(t)
	return addr, []string{"--nats-listen", addr}
}

// Join runs a worker that joins the server at the address. When the test ends it is stopped, before the server, and the test fails if
// anything of it is left on the machine.
func Join(t testing.TB, s *Server, addr string, flags ...string) *Worker {
	t.Helper()
	return join(t, s, s.within, addr, flags)
}

// JoinFrom is Join of a worker in a network of its own.
func JoinFrom(t testing.TB, s *Server, n *Network, addr string, flags ...string) *Worker {
	t.Helper()
	return join(t, s, n.Do, addr, flags)
}

func join(t testing.TB, s *Server, within func(func() error) error, addr string, flags []string) *Worker {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "tw") //nolint:usetesting // the test's own directory would be too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	w := &Worker{Name: filepath.Base(dir), DataDir: filepath.Join(dir, "data"), RunDir: filepath.Join(dir, "run"), Flags: flags}
	w.restartable = restartable{t: t, binary: Binary(t), verb: "worker", output: newOutput(t, w.Name), within: within, args: func() []string {
		return append([]string{
			"--join", "nats://" + addr, "--token-file", filepath.Join(s.DataDir, "worker.token"), "--data-dir", w.DataDir, "--run-dir", w.RunDir,
			"--node-name", w.Name, "--log-level", "debug", "--log-format", "text",
		}, w.Flags...)
	}}
	t.Cleanup(func() {
		w.Stop()
		w.CheckNothingLeft()
		if t.Failed() {
			w.tellOutput("worker " + w.Name)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("the directories are not removable: %v", err)
		}
	})
	w.Launch()
	return w
}

// Leftovers lists what of the worker is on the machine: processes, mounts, cgroups.
func (w *Worker) Leftovers() []string {
	return process.Leftovers(filepath.Dir(w.RunDir), w.DataDir, func(name string) bool { return strings.HasPrefix(name, "tatami-"+w.Name+"-") })
}

// CheckNothingLeft fails the test if anything of the worker is left on the machine.
func (w *Worker) CheckNothingLeft() {
	w.t.Helper()
	checkNothingLeft(w.t, w.Leftovers)
}
