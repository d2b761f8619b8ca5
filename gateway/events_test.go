package gateway

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/internal/fault"
)

// takers keep what is published, and answer as told.
type takers struct {
	namespace string
	events    []functions.Event
	err       error
}

func (k *takers) Publish(_ context.Context, namespace string, events []functions.Event) ([]v1.Emitted, error) {
	k.namespace, k.events = namespace, append(k.events, events...)
	return nil, k.err
}

func TestEventsOverHTTP(t *testing.T) {
	t.Parallel()
	k := &takers{}
	f := &front{}
	h := Public(f, f, Config{Domain: "fn.example"}, Events(k, Config{MaxBody: 100}))
	do := func(method, path, body string, set ...string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, path, strings.NewReader(body))
		for i := 0; i+1 < len(set); i += 2 {
			r.Header.Add(set[i], set[i+1])
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	event := []string{"ce-specversion", "1.0", "ce-id", "1", "ce-source", "/", "ce-type", "t"}

	w := do("POST", "/events", "x", event...)
	if w.Code != http.StatusAccepted || k.namespace != "default" || len(k.events) != 1 || w.Body.String() != `{"events":1,"invocations":[]}`+"\n" || w.Header().Get("Location") != "" {
		t.Errorf("%d %s %+v", w.Code, w.Body, k)
	}
	if w := do("POST", "/events/team-a", "", event...); w.Code != http.StatusAccepted || k.namespace != "team-a" {
		t.Errorf("%d %+v", w.Code, k)
	}
	for name, c := range map[string]struct {
		method, path, body string
		set                []string
		status             int
		field              string
	}{
		"another method": {"PUT", "/events", "", event, 405, ""},
		"namespace":      {"POST", "/events/Team", "", event, 400, "namespace"},
		"no event":       {"POST", "/events", "{}", []string{"Content-Type", "application/json"}, 400, "ce-specversion"},
		"no id":          {"POST", "/events", "", event[:2], 400, "id"},
		"format":         {"POST", "/events", "", []string{"Content-Type", "application/cloudevents+avro"}, 415, "Content-Type"},
		"size":           {"POST", "/events", strings.Repeat("x", 101), event, 413, ""},
		"a way further":  {"POST", "/events/a/b", "", event, 404, ""},
	} {
		w := do(c.method, c.path, c.body, c.set...)
		if w.Code != c.status || w.Header().Get("Tatami-Error") == "" || c.field != "" && !strings.Contains(w.Body.String(), `"field":"`+c.field+`"`) {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
	k.err = fault.New(fault.CodeQueueFull, "full").WithRetryAfter(2 * time.Second)
	if w := do("POST", "/events", "", event...); w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") != "2" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	// On the function's own host the path is the function's.
	if w := do("POST", "http://hello.default.fn.example/events", "", event...); !strings.Contains(w.Body.String(), "POST hello /events") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// A sender that asks first is told that it may send, at any rate.
func TestHandshake(t *testing.T) {
	t.Parallel()
	h := Public(&front{}, &front{}, Config{}, Events(&takers{}, Config{}))
	for _, c := range []struct{ origin, rate, wantOrigin, wantRate string }{
		{"sender.example", "120", "sender.example", "*"},
		{"sender.example", "", "sender.example", ""},
		{"", "120", "", ""},
	} {
		r := httptest.NewRequest(http.MethodOptions, "/events", nil)
		if c.origin != "" {
			r.Header.Set("WebHook-Request-Origin", c.origin)
		}
		if c.rate != "" {
			r.Header.Set("WebHook-Request-Rate", c.rate)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		got := w.Header()
		if w.Code != http.StatusNoContent || got.Get("WebHook-Allowed-Origin") != c.wantOrigin || got.Get("WebHook-Allowed-Rate") != c.wantRate || got.Get("Allow") != "POST" {
			t.Errorf("%+v: %d %v", c, w.Code, got)
		}
	}
}
