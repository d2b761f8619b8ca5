package queue

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

func allowing(urls ...string) func(*functions.Config) {
	return func(c *functions.Config) { c.Queue.Callbacks.Allow = urls }
}

// The record goes where the caller wants it, signed and tried again as to a destination, and to the function's destination, too.
func TestTheRecordGoesWhereTheCallerWantsIt(t *testing.T) {
	t.Parallel()
	box := newMailbox(t, func(n int) int {
		if n == 0 {
			return http.StatusServiceUnavailable
		}
		return http.StatusNoContent
	})
	own := newMailbox(t, always(http.StatusOK))
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run := newDataPath(t, 4, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h := r.Header.Get(functions.HeaderCallback); h != "" {
			t.Errorf("the function is told of the callback: %s", h)
		}
		if r.URL.Path == "/bad" {
			w.WriteHeader(http.StatusBadRequest)
		}
	}))
	run.deploy(hello, func(c *functions.Config) {
		c.Queue.Callbacks = functions.Callbacks{Allow: []string{box.URL + "/jobs"}, Secret: functions.SecretRef{File: key}}
		c.Queue.OnSuccess = functions.Destination{URL: own.URL}
	})
	w := start(t, t.TempDir(), run, Config{BackoffBase: 10 * time.Millisecond, BackoffMax: 10 * time.Millisecond})
	for i, c := range []struct{ path, end string }{{"/good", "success"}, {"/bad", "failure"}} {
		had := len(box.letters())
		url := box.URL + "/jobs/7?n=1"
		id := w.accept(Request{Path: c.path, Callback: url})
		w.ends(id)
		w.empty()
		got := box.letters()[had:]
		if want := 2 - i; len(got) != want {
			t.Fatalf("%d deliveries, want %d", len(got), want)
		}
		l := got[len(got)-1]
		if h := l.header; h.Get(headerOf) != string(id) || h.Get(headerEnd) != c.end || h.Get(functions.HeaderCallback) != "" || !strings.HasPrefix(h.Get(headerSignature), "t=") {
			t.Errorf("%v", h)
		}
		if r := record(t, l.body); r.ID != id || !r.State.Terminal() {
			t.Errorf("%s", l.body)
		}
	}
	if n := len(own.letters()); n != 1 {
		t.Errorf("%d went to the function's own destination", n)
	}
}

func TestACallbackThatIsNotAllowed(t *testing.T) {
	t.Parallel()
	box := newMailbox(t, always(http.StatusOK))
	run := newDataPath(t, 0, http.HandlerFunc(echo))
	run.deploy(hello, nil)
	w := start(t, t.TempDir(), run, Config{})
	_, err := w.q.Accept(t.Context(), Request{Ref: hello, Callback: box.URL})
	wantCode(t, err, fault.CodeDenied)
	run.deploy(hello, allowing(box.URL))
	_, err = w.q.Accept(t.Context(), Request{Ref: hello, Callback: box.URL + "/a/../b"})
	wantCode(t, err, fault.CodeInvalidRequest)
	// What is allowed no more when it is to go there goes nowhere, and is a dead letter of the deliveries.
	id := w.accept(Request{Callback: box.URL + "/a"})
	run.deploy(hello, allowing("https://example.com"))
	run.set(func() { run.free = 4 })
	w.ends(id)
	w.empty()
	letters, err := w.q.Dead(t.Context(), hello.Deliveries(functions.EndCallback), 10)
	if err != nil || len(letters) != 1 || !strings.Contains(letters[0].Reason, "allows no callback") {
		t.Errorf("%+v, %v", letters, err)
	}
	if n := len(box.letters()); n != 0 {
		t.Errorf("%d deliveries", n)
	}
}
