//go:build e2e

package main

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/tests/e2e/harness"
)

// The benchmarks run and write what they promise; a trial shows the harness, and is no figure.
func TestBench(t *testing.T) {
	harness.Require(t)
	out := filepath.Join(t.TempDir(), "bench.jsonl")
	ctx, cancel := context.WithTimeout(t.Context(), 7*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "run", "./tests/bench", "-tatami", harness.Binary(t), "-out", out, "-trial",
		"-only", "queue,warm,cold.spaced,cold.many,cold.activation,noisy,overload,cluster.hop")
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
		"warm p99_us_open30 nginx", "warm p50_us_c1 hop", "warm p50_us_c1 stay-awake-never", "warm rps_c32 stay-awake-never", "warm p50_us_c1_f4 one-function", "overload goodput_ratio ", "overload recovery_s ",
		"cluster hop_p50_us_c1 local", "cluster hop_rps_c32 local", "cluster hop_p50_us_c1 two-hops",
	} {
		if !got[want] {
			t.Errorf("no figure %s", want)
		}
	}
}
