package obs_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/internal/obs"
	"github.com/tatami-faas/tatami/tests/golden"
)

type source func() (obs.Sample, error)

func (s source) Sample(context.Context) (obs.Sample, error) { return s() }

func scrape(t *testing.T, cfg obs.MetricsConfig, src obs.Source, log *slog.Logger) (int, string) {
	t.Helper()
	m, err := obs.NewMetrics(cfg, src, log)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(m.Handler())
	defer srv.Close()
	resp, err := srv.Client().Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func sample() obs.Sample {
	return obs.Sample{
		SchedulerUp: true, StreamClients: 2,
		Functions: []obs.FunctionSample{{
			Namespace: "default", Function: "hello", Codes: map[string]uint64{"200": 90, "201": 5, "404": 3, "502": 2, "function-timeout": 1}, Errors: 2, ColdStarts: 4,
			InFlight: 7, Waiting: 1, P50: 1500 * time.Microsecond, P99: 38 * time.Millisecond, Instances: map[string]int{"starting": 1, "ready": 3, "draining": 0},
			Desired: 4, StartFailures: 1, Pending: 12, Scheduled: 3, Running: 2, Dead: 1, OldestAge: 90 * time.Second,
		}, {Namespace: "ml", Function: "idle", P50: -1, P99: -1}},
		Servers: []obs.ServerSample{{Peer: "10.0.0.1:6222", Name: "s1", Up: true, Leads: true}, {Peer: "10.0.0.2:6222", Name: "s2"}},
		Nodes: []obs.NodeSample{{
			ID: "nod_1", Name: "one", Up: true, CPU: obs.Capacities{Capacity: 4000, Allocatable: 3500, Reserved: 1250, Used: 420},
			Memory: obs.Capacities{Capacity: 8 << 30, Allocatable: 7 << 30, Reserved: 1 << 30, Used: 3 << 30},
		}},
	}
}

// TestMetricsGolden holds the names, labels and meaning of the metrics: dashboards and alerts of others rest on them.
func TestMetricsGolden(t *testing.T) {
	t.Parallel()
	status, got := scrape(t, obs.MetricsConfig{Version: "1.2.3", Bare: true}, source(func() (obs.Sample, error) { return sample(), nil }), slog.New(slog.DiscardHandler))
	if status != http.StatusOK {
		t.Fatalf("status %d: %s", status, got)
	}
	golden.Check(t, "metrics.golden", []byte(got))
}

func TestMetricsOfTheProcess(t *testing.T) {
	t.Parallel()
	_, got := scrape(t, obs.MetricsConfig{}, source(func() (obs.Sample, error) { return sample(), nil }), slog.New(slog.DiscardHandler))
	for _, name := range []string{"go_goroutines ", "process_resident_memory_bytes ", "process_open_fds "} {
		if !strings.Contains(got, "\n"+name) {
			t.Errorf("there is no %s", name)
		}
	}
}

func TestThawsAreCountedAndTimed(t *testing.T) {
	t.Parallel()
	cfg := obs.MetricsConfig{Thaws: func() obs.ThawSample { return obs.ThawSample{Count: 3, Took: 1500 * time.Microsecond} }}
	_, got := scrape(t, cfg, source(func() (obs.Sample, error) { return sample(), nil }), slog.New(slog.DiscardHandler))
	for _, line := range []string{"tatami_instance_thaw_seconds_count 3", "tatami_instance_thaw_seconds_sum 0.0015"} {
		if !strings.Contains(got, "\n"+line+"\n") {
			t.Errorf("there is no %q", line)
		}
	}
}

func TestASourceThatFailsHidesNothingElse(t *testing.T) {
	t.Parallel()
	var logged bytes.Buffer
	status, got := scrape(t, obs.MetricsConfig{Version: "9"}, source(func() (obs.Sample, error) { return obs.Sample{}, errors.New("stopping") }), slog.New(slog.NewTextHandler(&logged, nil)))
	if status != http.StatusOK || !strings.Contains(got, `tatami_build_info{version="9"} 1`) || !strings.Contains(got, "go_goroutines ") {
		t.Errorf("status %d: %s", status, got)
	}
	if strings.Contains(got, "tatami_function") {
		t.Error("there are figures of functions without a source")
	}
	if !strings.Contains(logged.String(), "stopping") {
		t.Errorf("the log does not say why: %q", logged.String())
	}
}

func TestHostileNamesSpoilNoScrape(t *testing.T) {
	t.Parallel()
	s := sample()
	s.Functions[0].Function = "bad\xff\"\n{name}"
	s.Nodes[0].Name = "\xff"
	status, got := scrape(t, obs.MetricsConfig{Bare: true}, source(func() (obs.Sample, error) { return s, nil }), slog.New(slog.DiscardHandler))
	if status != http.StatusOK || !strings.Contains(got, `tatami_function_in_flight{function="bad`+"\uFFFD"+`\"\n{name}",namespace="default"} 7`) {
		t.Errorf("status %d: %s", status, got)
	}
}
