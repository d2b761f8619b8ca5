package queue

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

func TestADeadInvocationIsRedrivenOnce(t *testing.T) {
	t.Parallel()
	var well atomic.Bool
	run := newDataPath(t, 2, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !well.Load() {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		// Go's server throws away what is left of the request once an answer has begun.
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Echo", r.Method+" "+r.RequestURI+" "+r.Header.Get("X-In"))
		_, _ = w.Write(body)
	}))
	run.deploy(hello, nil)
	w := start(t, t.TempDir(), run, Config{InlineBody: 64})
	for name, body := range map[string]string{"small": "hi", "large": strings.Repeat("x", 1000)} {
		well.Store(false)
		id := w.accept(Request{Method: "PUT", Path: "/p", Query: "q=1", Header: http.Header{"X-In": {"v"}}, Body: []byte(body)})
		if st := w.ends(id); st.State != functions.StateDead {
			t.Fatalf("%s: %+v", name, st)
		}
		w.empty()
		well.Store(true)
		var again []functions.InvocationID
		var mu sync.Mutex
		var group sync.WaitGroup
		for range 4 {
			group.Go(func() {
				next, err := w.q.Redrive(t.Context(), id, "")
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					again = append(again, next)
				} else if fault.CodeOf(err) != fault.CodeInvocationNotFound {
					t.Errorf("%s: %v", name, err)
				}
			})
		}
		group.Wait()
		if len(again) != 1 {
			t.Fatalf("%s: redriven %d times", name, len(again))
		}
		st := w.ends(again[0])
		if st.State != functions.StateSucceeded || w.body(st.Result) != body || http.Header(st.Result.Header).Get("X-Echo") != "PUT /p?q=1 v" {
			t.Errorf("%s: %+v", name, st)
		}
		if old := w.ends(id); old.State != functions.StateDead {
			t.Errorf("%s: the first one's record is %s now", name, old.State)
		}
	}
}

func TestARedriveThatIsRefusedKeepsTheLetter(t *testing.T) {
	t.Parallel()
	run := newDataPath(t, 1, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadRequest) }))
	run.deploy(hello, nil)
	w := start(t, t.TempDir(), run, Config{})
	id := w.accept(Request{})
	w.ends(id)
	run.set(func() { delete(run.revs, hello) })
	_, err := w.q.Redrive(t.Context(), id, "")
	wantCode(t, err, fault.CodeFunctionNotFound)
	if _, err := w.q.ShowDead(t.Context(), id); err != nil {
		t.Errorf("the letter is gone: %v", err)
	}
}

// The letter is on disk: what takes its place must be, too, even of a function that does not wait for the disk.
func TestALetterStaysUntilWhatTakesItsPlaceIsOnDisk(t *testing.T) {
	t.Parallel()
	var redriven atomic.Bool
	done := make(chan struct{})
	defer close(done)
	run := newDataPath(t, 1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if redriven.Load() {
			// Its end would fail for the same reason, and be taken for what is looked for.
			hold(r, done)
		}
		w.WriteHeader(http.StatusBadRequest)
	}))
	run.deploy(hello, func(c *functions.Config) { c.Queue.Durability = functions.DurabilityFast })
	dir, b, q, ended := startOver(t, run, Config{Drain: time.Millisecond})
	id, err := q.Accept(t.Context(), Request{Ref: hello})
	if err != nil {
		t.Fatal(err)
	}
	for st := (Status{}); !st.State.Terminal(); {
		if st, err = q.Lookup(t.Context(), id, time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	// So would its acknowledgement.
	(&world{t: t, bus: b}).empty()
	redriven.Store(true)
	failDisk(t, dir)
	_, err = q.Redrive(t.Context(), id, "")
	wantCode(t, err, fault.CodeUnavailable)
	if _, err := q.ShowDead(t.Context(), id); err != nil {
		t.Errorf("the letter is gone: %v", err)
	}
	wantCode(t, receive(t, ended, "Run ends without a store"), fault.CodeUnavailable)
}

// What is redriven keeps its place in an order, and whoever waits for its end hears of it.
func TestARedriveKeepsTheOrderingKeyAndTheCallback(t *testing.T) {
	t.Parallel()
	run := newDataPath(t, 1, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadRequest) }))
	run.deploy(hello, func(c *functions.Config) {
		c.Queue.Callbacks = functions.Callbacks{Allow: []string{"http://127.0.0.1:1/"}}
	})
	w := start(t, t.TempDir(), run, Config{})
	const key, callback = "k", "http://127.0.0.1:1/done"
	id := w.accept(Request{OrderingKey: key, Callback: callback})
	w.ends(id)
	next, err := w.q.Redrive(t.Context(), id, "")
	if err != nil {
		t.Fatal(err)
	}
	w.ends(next)
	letter, err := w.q.ShowDead(t.Context(), next)
	if err != nil || letter.Invocation.OrderingKey != key || letter.Invocation.Callback != callback {
		t.Errorf("%+v, %v", letter.Invocation, err)
	}
}

func TestDeadLettersArePurged(t *testing.T) {
	t.Parallel()
	run := newDataPath(t, 2, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadRequest) }))
	other := functions.Ref{Namespace: "default", Name: "other"}
	run.deploy(hello, nil)
	run.deploy(other, nil)
	w := start(t, t.TempDir(), run, Config{InlineBody: 64})
	for range 3 {
		w.ends(w.accept(Request{Body: []byte(strings.Repeat("x", 100))}))
	}
	kept := w.accept(Request{Ref: other})
	w.ends(kept)
	w.empty()
	for _, want := range []int{2, 1, 0} {
		if n, err := w.q.PurgeDead(t.Context(), hello, 2); n != want || err != nil {
			t.Errorf("%d are purged, %v; want %d", n, err, want)
		}
	}
	if objects, err := w.bus.Bodies().List(t.Context()); err != nil || len(objects) != 0 {
		t.Errorf("bodies are left: %v, %v", objects, err)
	}
	if _, err := w.q.ShowDead(t.Context(), kept); err != nil {
		t.Errorf("another function's letter is gone: %v", err)
	}
}
