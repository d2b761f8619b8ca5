package gateway

import (
	"strings"
	"testing"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/queue"
)

func TestASynchronousRequestWithAKeyIsKept(t *testing.T) {
	t.Parallel()
	f, do := setup(t)
	w := do("PUT", "/fn/hello/a?b=c", "load", "Idempotency-Key", "k")
	r := f.accepted[0]
	if w.Code != 201 || w.Body.String() != "as load" || w.Header().Get("X-Fn") != "inv_y" || w.Header().Get("Tatami-Invocation-Id") != "inv_y" {
		t.Errorf("%d %q %v", w.Code, w.Body, w.Header())
	}
	if w.Header().Get("Idempotency-Replayed") != "" || f.outcome != queue.OutcomeAnswered {
		t.Errorf("outcome %d %v", f.outcome, w.Header())
	}
	if r.Key != "k" || r.Method != "PUT" || r.Path != "/a" || r.Query != "b=c" {
		t.Errorf("asked for %+v", r)
	}
	if w = do("PUT", "/fn/hello", "", "Idempotency-Key", "again"); w.Header().Get("Idempotency-Replayed") != "true" {
		t.Errorf("a repetition does not say so: %v", w.Header())
	}
	for path, want := range map[string]queue.Outcome{"/crash": queue.OutcomeUnknown, "/full": queue.OutcomeUntouched} {
		if do("POST", "/fn/hello"+path, "", "Idempotency-Key", "k"); f.outcome != want {
			t.Errorf("%s: outcome %d, want %d", path, f.outcome, want)
		}
	}
}

func TestAQueuedRequestHandsItsKeyOver(t *testing.T) {
	t.Parallel()
	f, do := setup(t)
	if w := do("POST", "/async/hello", "", "Idempotency-Key", "k"); w.Code != 202 || w.Header().Get("Idempotency-Replayed") != "" || f.accepted[0].Key != "k" {
		t.Errorf("%d %v %+v", w.Code, w.Header(), f.accepted)
	}
	w := do("POST", "/fn/hello", "", "Idempotency-Key", "again", "Prefer", "respond-async", "Tatami-Ordering-Key", "o")
	if w.Code != 202 || w.Header().Get("Idempotency-Replayed") != "true" || f.accepted[1].Key != "again" || f.accepted[1].OrderingKey != "o" {
		t.Errorf("%d %v %+v", w.Code, w.Header(), f.accepted)
	}
}

func TestWhatIsWrongWithAKeyIsSaid(t *testing.T) {
	t.Parallel()
	f, do := setup(t)
	for name, set := range map[string][]string{
		"empty":   {"Idempotency-Key", ""},
		"long":    {"Idempotency-Key", strings.Repeat("x", functions.MaxKey+1)},
		"control": {"Idempotency-Key", "a\tb"},
		"two":     {"Idempotency-Key", "a", "Idempotency-Key", "b"},
	} {
		for _, target := range []string{"/async/hello", "/fn/hello"} {
			w := do("POST", target, "", set...)
			if w.Code != 400 || w.Header().Get("Tatami-Error") != "invalid-request" || !strings.Contains(w.Body.String(), `"field":"Idempotency-Key"`) {
				t.Errorf("%s %s: %d %s", name, target, w.Code, w.Body)
			}
		}
	}
	if w := do("POST", "/async/hello", "", "Tatami-Ordering-Key", ""); w.Code != 400 || !strings.Contains(w.Body.String(), `"field":"Tatami-Ordering-Key"`) {
		t.Errorf("an empty ordering key: %d %s", w.Code, w.Body)
	}
	w := do("GET", "/fn/hello", "", "Idempotency-Key", "k", "Connection", "Upgrade", "Upgrade", "websocket")
	if w.Code != 400 || len(f.accepted) > 0 {
		t.Errorf("an upgrade with a key: %d %s", w.Code, w.Body)
	}
}
