//go:build e2e

package e2e

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/tests/e2e/harness"
)

// `make demo` shows what each step took, the phases of the cold start among them, and the dashboard; KEEP=1 leaves the system running, and
// it says where that is and how to stop it.
func TestDemoKeep(t *testing.T) {
	harness.Require(t)
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "make", "demo")
	cmd.Dir = harness.Root(t)
	cmd.Env = append(os.Environ(), "KEEP=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, step := range []string{
		"start tatami up", "deploy from source", "call over HTTP", "hand over 100 invocations", "fetch all 100 results", "scale to zero", "call from zero",
		"  place", "  create", "  start", "  ready", "  run", "call again, warm",
	} {
		if !regexp.MustCompile(`(?m)^│ ` + step + ` +│ +[\d.]+[mµ]?s +│ .*│$`).Match(out) {
			t.Errorf("the demo's table has no row %q:\n%s", step, out)
		}
	}
	said := regexp.MustCompile(`functions at (http://\S+), dashboard at (http://\S+)\nstop it with: kill (\d+)`).FindSubmatch(out)
	if said == nil {
		t.Fatalf("the demo does not say where it is:\n%s", out)
	}
	pid, err := strconv.Atoi(string(said[3]))
	if err != nil {
		t.Fatal(err)
	}
	for _, url := range []string{string(said[1]) + "/fn/hello", string(said[2])} {
		resp, err := http.Get(url)
		if err != nil {
			t.Error(err)
			continue
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", url, resp.Status)
		}
	}
	args, err := os.ReadFile("/proc/" + string(said[3]) + "/cmdline")
	if err != nil || !strings.Contains(string(args), "tatami-demo") {
		t.Fatalf("process %d is not the demo's: %q, %v", pid, args, err)
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "the demo ends", func() bool { return syscall.Kill(pid, 0) != nil || ended(pid) })
	words := strings.Split(string(args), "\x00")
	for _, flag := range []string{"--data-dir", "--run-dir"} {
		dir := strings.TrimSuffix(words[slices.Index(words, flag)+1], "/data")
		if !strings.HasPrefix(filepath.Base(dir), "tatami-demo") {
			t.Fatalf("%s is %s", flag, dir)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	}
}
