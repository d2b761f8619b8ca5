package gateway

import (
	"strings"
	"testing"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/queue"
)

func TestAnInvocationIsFollowed(t *testing.T) {
	t.Parallel()
	f, do := setup(t)
	f.status = queue.Status{ID: "inv_x", State: functions.StateAccepted, Result: &functions.Result{Status: 200, Body: []byte("line\nline")}}
	w := do("GET", "/invocations/inv_x", "", "Accept", "application/json;q=0.1, text/event-stream")
	if w.Code != 200 || w.Header().Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%d %v %s", w.Code, w.Header(), w.Body)
	}
	events := strings.Split(strings.TrimSuffix(w.Body.String(), "\n\n"), "\n\n")
	if len(events) != 3 {
		t.Fatalf("%d events: %q", len(events), events)
	}
	for i, state := range []string{"accepted", "running", "succeeded"} {
		if !strings.HasPrefix(events[i], "event: state\ndata: {") || !strings.Contains(events[i], `"state":"`+state+`"`) || strings.Count(events[i], "\n") != 1 {
			t.Errorf("event %d: %q", i, events[i])
		}
	}
	if w := do("GET", "/invocations/inv_nobody", "", "Accept", "text/event-stream"); w.Code != 404 || w.Header().Get("Tatami-Error") != "invocation-not-found" {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
}
