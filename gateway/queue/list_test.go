package queue

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
)

// The newest dead letters come first, whichever function's, however many others lie between them.
func TestTheNewestDeadLetters(t *testing.T) {
	t.Parallel()
	w := start(t, t.TempDir(), newDataPath(t, 0, http.HandlerFunc(echo)), Config{})
	rare := functions.Ref{Namespace: "ns", Name: "rare"}
	died := time.Now().UTC()
	put := func(ref functions.Ref, n int) {
		id := functions.NewInvocationID(ref)
		subject, _ := bus.DeadSubject(id)
		data, err := json.Marshal(&functions.DeadLetter{
			Schema: functions.Schema, Invocation: functions.Invocation{Schema: functions.Schema, ID: id, Namespace: ref.Namespace, Function: ref.Name},
			Reason: fmt.Sprint(n), Died: died.Add(time.Duration(n) * time.Second),
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.bus.JetStream().PublishAsync(subject, data); err != nil {
			t.Fatal(err)
		}
	}
	const many = 3000
	for n := range many {
		if n%1000 == 10 {
			put(rare, n)
		} else {
			put(hello, n)
		}
	}
	receive(t, w.bus.JetStream().PublishAsyncComplete(), "all are stored")
	want := func(ref functions.Ref, limit int, reasons ...int) {
		t.Helper()
		got, err := w.q.Dead(t.Context(), ref, limit)
		if err != nil || len(got) != len(reasons) {
			t.Fatalf("%d letters, want %d: %v", len(got), len(reasons), err)
		}
		for i, n := range reasons {
			if got[i].Reason != fmt.Sprint(n) {
				t.Errorf("letter %d is %s, want %d", i, got[i].Reason, n)
			}
		}
	}
	want(hello, 3, 2999, 2998, 2997)
	want(rare, 2, 2010, 1010)
	want(rare, 10, 2010, 1010, 10)
	want(functions.Ref{}, 1, 2999)
	want(hello, 0)
	if all, err := w.q.Dead(t.Context(), functions.Ref{}, many+1); err != nil || len(all) != many {
		t.Errorf("%d letters in all, %v", len(all), err)
	}
}

// What runs is listed without a look at what waits before or behind it.
func TestListOfWhatRuns(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	run := newDataPath(t, 2, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { hold(r, release) }))
	run.deploy(hello, nil)
	w := start(t, t.TempDir(), run, Config{})
	for range 20 {
		w.accept(Request{})
	}
	defer close(release)
	deadline := time.Now().Add(10 * time.Second)
	for {
		got, err := w.q.List(t.Context(), hello, functions.StateRunning, 10)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) == 2 {
			for _, st := range got {
				if st.Started.IsZero() || st.State != functions.StateRunning {
					t.Errorf("%+v", st)
				}
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d run", len(got))
		}
		time.Sleep(5 * time.Millisecond)
	}
	if got, _ := w.q.List(t.Context(), hello, functions.StateRunning, 1); len(got) != 1 {
		t.Errorf("%d with a limit of 1", len(got))
	}
	if got, _ := w.q.List(t.Context(), functions.Ref{Namespace: "default", Name: "other"}, functions.StateRunning, 10); len(got) != 0 {
		t.Errorf("%d of another function", len(got))
	}
}
