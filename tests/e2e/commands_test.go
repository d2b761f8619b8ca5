//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
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

// The benchmarks run and write what they promise; one round is a trial of the harness, not a figure.
func TestBench(t *testing.T) {
	harness.Require(t)
	out := filepath.Join(t.TempDir(), "bench.jsonl")
	ctx, cancel := context.WithTimeout(t.Context(), 7*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "run", "./tests/bench", "-tatami", harness.Binary(t), "-out", out, "-rounds", "1",
		"-only", "queue,warm,cold.spaced,cold.many,cold.activation,noisy,overload,cluster.hop", "-functions", "4", "-overload", "5s", "-fleet", "10", "-sustain", "5s")
	cmd.Dir = harness.Root(t)
	if got, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, got)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for line := range strings.Lines(string(b)) {
		var f struct {
			Bench, Metric, Unit, Baseline string
			Value, Ratio                  float64
			BaselineValue                 float64 `json:"baseline_value"`
		}
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		// What memory the machine lost between two moments may be nothing at all, beside so few instances, and so may what a pool still has after a few
		// seconds of starts, and the starts that did not come from it.
		maybe := strings.Contains(f.Metric, "_mb") || strings.Contains(f.Metric, "_kb_") || strings.HasPrefix(f.Metric, "sustained") ||
			strings.HasPrefix(f.Metric, "cpu_ms_per_start")
		if f.Value < 0 || f.Unit == "" || !maybe && (f.Value == 0 || f.Baseline != "" && (f.BaselineValue <= 0 || f.Ratio <= 0)) {
			t.Errorf("a figure without a value: %s", line)
		}
		got[f.Bench+" "+f.Metric+" "+f.Baseline] = true
	}
	for _, want := range []string{
		"warm p50_us_c1 direct", "warm p50_us_c1 reverseproxy", "warm p99_us_c1 reverseproxy", "warm rps_c1 direct", "warm rps_c32 direct",
		"warm rps_c32 reverseproxy", "warm p99_us_open30 reverseproxy", "cold p50_ms containerd-client", "cold p99_ms containerd-client",
		"queue accept_per_s_c64 raw-jetstream", "queue accept_per_s_c64 raw-jetstream-sync-always", "queue complete_per_s raw-jetstream", "scheduler noisy_p99_ratio ",
		"warm p99_us_open30 nginx", "warm p50_us_c1 hop", "warm p50_us_c1_f4 one-function", "overload goodput_ratio ", "overload recovery_s ",
		"cluster hop_p50_us_c1 local", "cluster hop_rps_c32 local",
	} {
		if !got[want] {
			t.Errorf("no figure %s", want)
		}
	}
}
