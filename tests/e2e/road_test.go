//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/tests/e2e/harness"
)

// The whole road: deploy from source, call cold and warm, hand over through the queue, scale to zero, call from zero again.
func TestRoad(t *testing.T) {
	s := harness.Start(t)
	s.Deploy("hello", "hello", "scale: {keepAlive: 1s}\n")

	resp, body := s.Get("/fn/hello")
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Tatami-Invocation-Id") == "" {
		t.Fatalf("%s %v: %s", resp.Status, resp.Header, body)
	}

	ids := make([]string, 100)
	for i := range ids {
		ids[i] = async(t, s, "hello", "{}")
	}
	for _, id := range ids {
		if st := result(t, s, id); st.State != string(functions.StateSucceeded) || st.Status != 200 || len(st.Attempts) != 1 {
			t.Errorf("%s: %+v", id, st)
		}
	}

	eventually(t, 30*time.Second, "hello scales to zero", func() bool { return len(instances(t, s, "hello")) == 0 })
	resp, body = s.Get("/fn/hello")
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("from zero: %s %s", resp.Status, body)
	}
	timing := resp.Header.Get("Server-Timing")
	for _, phase := range []string{"place", "create", "start", "ready", "run"} {
		if !strings.Contains(timing, phase+";dur=") {
			t.Errorf("Server-Timing %q of a cold start lacks %s", timing, phase)
		}
	}
	// Kept for longer than a machine stands still between two calls.
	s.Deploy("hello", "hello", "scale: {keepAlive: 10m}\n")
	s.Get("/fn/hello")
	resp, _ = s.Get("/fn/hello")
	if timing := resp.Header.Get("Server-Timing"); strings.Contains(timing, "create") {
		t.Errorf("Server-Timing %q of a warm call shows a start", timing)
	}
}

// Redeploys move the traffic without a failed request; a deploy that never gets ready leaves it where it was and shows the logs.
func TestRevisions(t *testing.T) {
	s := harness.Start(t)
	s.Deploy("probe", "probe", "env: {VERSION: one}\n")
	version := func() string {
		_, body := s.Get("/fn/probe/env")
		for _, v := range []string{"one", "two", "three"} {
			if strings.Contains(body, `"VERSION":"`+v+`"`) {
				return v
			}
		}
		return body
	}
	if v := version(); v != "one" {
		t.Fatalf("version %s", v)
	}
	s.Deploy("probe", "probe", "env: {VERSION: two}\n")
	if v := version(); v != "two" {
		t.Fatalf("version %s after the deploy returned", v)
	}

	r := s.TryDeploy("probe", "probe", "env: {VERSION: three, PROBE_START: exit}\n")
	if r.Exit != 9 {
		t.Errorf("a deploy that exits at once ended with %d: %s", r.Exit, r.Stderr)
	}
	if !strings.Contains(r.Stderr, "exited with code") || !strings.Contains(r.Stderr, "probe exits as it was told") {
		t.Errorf("the error shows neither the reason nor the function's log:\n%s", r.Stderr)
	}
	if v := version(); v != "two" {
		t.Errorf("version %s after a failed deploy", v)
	}

	s.Must("rollback", "probe")
	if v := version(); v != "one" {
		t.Errorf("version %s after the rollback returned", v)
	}

	s.Must("delete", "probe", "--yes")
	resp, body := s.Get("/fn/probe")
	refused(t, resp, body, 404, "function-not-found")
	resp, body = s.Do("POST", "/async/probe", "", nil)
	refused(t, resp, body, 404, "function-not-found")
	eventually(t, 30*time.Second, "the instances of a deleted function end", func() bool { return len(instances(t, s, "probe")) == 0 })
}

func TestLogs(t *testing.T) {
	s := harness.Start(t)
	s.Deploy("probe", "probe", "")
	s.Get("/fn/probe/log?lines=3")
	eventually(t, 10*time.Second, "the lines are in the logs", func() bool {
		return strings.Count(s.Must("logs", "probe").Stdout, "line ") >= 3
	})
	if out := s.Must("logs", "probe", "--tail", "1").Stdout; strings.Count(out, "\n") != 1 {
		t.Errorf("--tail 1 gave %q", out)
	}
}

// A log that is followed goes on when the server comes back, without a line lost or repeated, and says so beside the lines.
func TestLogsFollowOverARestart(t *testing.T) {
	s := harness.Start(t)
	s.Deploy("probe", "probe", "")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, harness.Binary(t), "logs", "probe", "-f")
	cmd.Env = append(os.Environ(), "TATAMI_SERVER=unix://"+filepath.Join(s.RunDir, "control.sock"))
	out, talk := &output{}, &output{}
	cmd.Stdout, cmd.Stderr = out, talk
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.Get("/fn/probe/log?lines=3")
	eventually(t, 10*time.Second, "the lines are followed", func() bool { return strings.Count(out.String(), "line ") == 3 })
	s.Kill()
	eventually(t, 10*time.Second, "the loss is told", func() bool { return strings.Contains(talk.String(), "waiting for the server") })
	s.Launch()
	eventually(t, 20*time.Second, "the return is told", func() bool { return strings.Contains(talk.String(), "the server is back") })
	s.Get("/fn/probe/log?lines=4")
	eventually(t, 10*time.Second, "later lines are followed", func() bool { return strings.Count(out.String(), "line ") >= 7 })
	cancel()
	_ = cmd.Wait()
	if n := strings.Count(out.String(), "line "); n != 7 {
		t.Errorf("%d lines of 7:\n%s", n, out.String())
	}
}

// output is written by a process and read meanwhile.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}
