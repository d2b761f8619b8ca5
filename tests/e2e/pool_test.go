//go:build e2e

package e2e

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/tests/e2e/harness"
)

// With sandboxes made ahead, a call from zero is served by one of them, which is an instance like any other: shown, logged, entered,
// adopted after kill -9, deleted. Nothing of the pool stays when the server ends; the harness looks.
func TestSandboxPool(t *testing.T) {
	s := harness.Start(t, harness.WithFlags("--sandbox-pool", "8"))
	s.Deploy("idle", "probe", "scale: {keepAlive: 1s}\n")
	eventually(t, 60*time.Second, "a start from zero takes a sandbox made ahead", func() bool {
		if len(instances(t, s, "idle")) > 0 {
			return false
		}
		resp, body := s.Get("/fn/idle/log?lines=1")
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("%s %s", resp.Status, body)
		}
		return strings.Contains(resp.Header.Get("Server-Timing"), `path;desc="attach"`)
	})

	s.Deploy("kept", "probe", "scale: {min: 1, max: 1, keepAlive: 10m}\n")
	if resp, body := s.Get("/fn/kept/log?lines=1"); resp.StatusCode != http.StatusOK {
		t.Fatalf("%s %s", resp.Status, body)
	}
	before := instances(t, s, "kept")
	if len(before) != 1 || before[0].PID == 0 || before[0].Phases.Path != "attach" || before[0].Phases.PathReason != "" {
		t.Fatalf("%+v", before)
	}
	id := string(before[0].ID)
	if out := s.Must("inst", "show", id).Stdout; !strings.Contains(out, "attach") {
		t.Errorf("inst show:\n%s", out)
	}
	exec := func() {
		t.Helper()
		// The image holds nothing but the function, which finds its port taken: it runs in the instance's own network.
		if r := s.CLI("inst", "exec", id, "--", "/function"); r.Exit != 1 || !strings.Contains(r.Stderr, "address already in use") {
			t.Errorf("exec ended with %d and gave %q, %q", r.Exit, r.Stdout, r.Stderr)
		}
	}
	exec()

	s.Kill()
	s.Launch()
	eventually(t, 10*time.Second, "the instance is adopted", func() bool {
		after := instances(t, s, "kept")
		return len(after) == 1 && after[0].PID == before[0].PID && after[0].ID == before[0].ID && after[0].Adopted
	})
	if resp, body := s.Get("/fn/kept/log?lines=2"); resp.StatusCode != http.StatusOK {
		t.Fatalf("the adopted instance does not serve: %s %s", resp.Status, body)
	}
	eventually(t, 10*time.Second, "the logs of the adopted instance go on", func() bool {
		return strings.Count(s.Must("logs", "kept").Stdout, "line ") == 3
	})
	exec()
	s.Must("delete", "kept", "--yes")
	eventually(t, 30*time.Second, "the adopted instance is deleted", func() bool { return len(instances(t, s, "kept")) == 0 })
}
