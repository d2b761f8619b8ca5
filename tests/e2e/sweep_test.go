//go:build e2e

package e2e

import (
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What a worker that was killed has left running is ended without it and without its server, but not while a worker runs there.
func TestSweep(t *testing.T) {
	f := newFleet(t, 512)
	w := f.workers[0]
	f.Deploy("left", "probe", "memory: 64Mi\nephemeral: 1Mi\ncpu: 50m\nscale: {min: 2, max: 2}\n")
	eventually(t, 20*time.Second, "both instances are ready", func() bool { return total(f.on("left")) == 2 })
	sweep := []string{"worker", "--sweep", "--data-dir", w.DataDir, "--run-dir", w.RunDir, "--node-name", w.Name, "--log-format", "text"}
	if r := f.CLI(sweep...); r.Exit != 1 || !strings.Contains(r.Stderr, "in use by process") {
		t.Errorf("beside the worker: %d %s", r.Exit, r.Stderr)
	}
	w.Kill()
	if r := f.Must(sweep...); !strings.Contains(r.Stdout, "2 instances ended") {
		t.Errorf("%s%s", r.Stdout, r.Stderr)
	}
	w.CheckNothingLeft()
	if r := f.Must(sweep...); !strings.Contains(r.Stdout, "0 instances ended") {
		t.Errorf("again: %s%s", r.Stdout, r.Stderr)
	}
	sweep[3] = filepath.Join(t.TempDir(), "none")
	if r := f.Must(sweep...); !strings.Contains(r.Stdout, "no worker was here") {
		t.Errorf("elsewhere: %s%s", r.Stdout, r.Stderr)
	}
}
