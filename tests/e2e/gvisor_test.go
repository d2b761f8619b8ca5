//go:build e2e

package e2e

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/tests/e2e/harness"
)

// A function that asks for it runs on gVisor's kernel, and is called and shown like any other.
func TestGVisor(t *testing.T) {
	s := harness.Start(t)
	program := filepath.Join("..", "..", "tests", "escape", "hostile")
	s.Deploy("guarded", program, "sandbox: gvisor\nmemory: 192Mi\n")
	s.Deploy("plain", program, "")
	node, err := os.ReadFile("/proc/version")
	if err != nil {
		t.Fatal(err)
	}
	version := func(fn string) string {
		resp, body := s.Get("/fn/" + fn + "/try/read?path=/proc/version")
		var out struct{ Detail string }
		if err := json.Unmarshal([]byte(body), &out); err != nil {
			t.Fatalf("%s: %s %s", fn, resp.Status, body)
		}
		return out.Detail
	}
	if got := version("plain"); got != string(node) {
		t.Errorf("a plain function's kernel is %q", got)
	}
	if got := version("guarded"); got == "" || got == string(node) {
		t.Errorf("a guarded function's kernel is %q", got)
	}
	list := instances(t, s, "guarded")
	if len(list) != 1 || list[0].Phases.Path != "containerd" || !strings.Contains(list[0].Phases.PathReason, "gVisor") {
		t.Errorf("%+v", list)
	}
	// The next start from zero finds a container made ahead, and is an instance like any other.
	s.Deploy("asleep", program, "sandbox: gvisor\nmemory: 192Mi\nscale: {keepAlive: 1s}\n")
	eventually(t, 60*time.Second, "a start from zero takes a container made ahead", func() bool {
		if len(instances(t, s, "asleep")) > 0 {
			return false
		}
		resp, body := s.Get("/fn/asleep/try/read?path=/proc/version")
		if resp.StatusCode != http.StatusOK || strings.Contains(body, strings.TrimSpace(string(node))) {
			t.Fatalf("%s %s", resp.Status, body)
		}
		timing := resp.Header.Get("Server-Timing")
		return strings.Contains(timing, `path;desc="precreated"`) && strings.Contains(timing, "gVisor")
	})
	if out := s.Must("fn", "show", "guarded").Stdout; !strings.Contains(out, "gvisor") {
		t.Errorf("fn show does not tell of it:\n%s", out)
	}
	if r := s.TryDeploy("wrong", "probe", "sandbox: vm\n"); r.Exit != 2 || !strings.Contains(r.Stderr, "sandbox") {
		t.Errorf("deploy ended with %d\n%s%s", r.Exit, r.Stdout, r.Stderr)
	}
}

// A machine that is not to run gVisor refuses the deploy, and says why.
func TestGVisorRefused(t *testing.T) {
	s := harness.Start(t, harness.WithFlags("--gvisor=false", "--sandbox-pool", "0"))
	r := s.TryDeploy("guarded", "probe", "sandbox: gvisor\n")
	if out := r.Stdout + r.Stderr; r.Exit != 9 || !strings.Contains(out, "lacks gvisor") || !strings.Contains(out, "--gvisor=false") {
		t.Errorf("deploy ended with %d\n%s", r.Exit, out)
	}
	if out := s.Must("explain", "guarded").Stdout; !strings.Contains(out, "--gvisor=false") {
		t.Errorf("explain does not say why:\n%s", out)
	}
	if out := s.Must("node", "ls").Stdout; !strings.Contains(out, "ready") {
		t.Errorf("the node does not serve other functions:\n%s", out)
	}
	s.Deploy("plain", "probe", "")
}
