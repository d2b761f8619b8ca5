package trigger_test

import (
	"context"
	"log/slog"
	"net/http"
	"testing"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/trigger"
	"github.com/tatami-faas/tatami/internal/bus"
)

// A schedule fires through the real queue, remembers what it did, and stops when it is paused.
func TestCronFires(t *testing.T) {
	t.Parallel()
	w := start(t)
	got := make(chan http.Header, 100)
	w.path.deploy("ticks", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got <- r.Header.Clone() }))
	tr := functions.Trigger{Name: "ticks", Function: "ticks", Path: "/tick", Cron: &functions.CronSource{Schedule: "* * * * * *", Overlap: functions.OverlapForbid}}
	w.set(tr)
	seen := map[string]bool{}
	// The third firing is not begun before the second has been counted.
	for range 3 {
		h := mustGet(t, got)
		id := h.Get("Ce-Id")
		if seen[id] || id == "" || h.Get("Ce-Type") != "tatami.cron" || h.Get("Ce-Source") != "/tatami/triggers/default/ticks" || h.Get("Tatami-Trigger") != "ticks" {
			t.Errorf("%v", h)
		}
		seen[id] = true
		if st := w.ended(functions.InvocationID(h.Get("Tatami-Invocation-Id"))); st.State != functions.StateSucceeded {
			t.Errorf("%+v", st)
		}
	}
	tr.Paused = true
	w.set(tr)
	state, _, err := w.bus.TriggerStates().Get(t.Context(), bus.TriggerKey(named("ticks")))
	if err != nil || len(state.Firings) == 0 || state.Firings[0].Outcome != functions.FiringFired || state.Firings[0].Invocation == "" || state.Last.IsZero() {
		t.Errorf("%+v, %v", state, err)
	}
	if s, ok := w.hub.Status(named("ticks")); !ok || s.State != "paused" || s.Accepted < 2 {
		t.Errorf("%+v", s)
	}
}

// Two gateways that know nothing of each other make one invocation of each firing.
func TestTwoGatewaysFireOnce(t *testing.T) {
	t.Parallel()
	w := start(t)
	got := make(chan string, 100)
	w.path.deploy("ticks", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got <- r.Header.Get("Ce-Id") }))
	other := trigger.New(w.bus, w.q, w.path, slog.New(slog.DiscardHandler))
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- other.Run(ctx) }()
	<-other.Ready()
	w.set(functions.Trigger{Name: "ticks", Function: "ticks", Cron: &functions.CronSource{Schedule: "* * * * * *"}})
	seen := map[string]bool{}
	both := func() bool {
		a, _ := w.hub.Status(named("ticks"))
		b, _ := other.Status(named("ticks"))
		return a.Accepted >= 2 && b.Accepted >= 2
	}
	for len(seen) < 3 || !both() {
		if len(seen) > 60 {
			t.Fatal("one of the two does not fire")
		}
		id := mustGet(t, got)
		if seen[id] {
			t.Errorf("%s fired twice", id)
		}
		seen[id] = true
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
