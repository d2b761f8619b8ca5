package queue

import (
	"net/http"
	"testing"

	"github.com/tatami-faas/tatami/functions"
)

// A queue that rests goes on with what runs, and takes what comes; that runs in the next process, and what ran does not run again.
func TestARestingQueueStartsNothing(t *testing.T) {
	t.Parallel()
	var c calls
	begun, end := make(chan struct{}, 100), make(chan struct{})
	run := newDataPath(t, 2, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		c.add(r)
		begun <- struct{}{}
		hold(r, end)
	}))
	other := functions.Ref{Namespace: "default", Name: "other"}
	run.deploy(hello, nil)
	run.deploy(other, nil)
	dir := t.TempDir()
	w := start(t, dir, run, Config{})
	running := w.accept(Request{})
	receive(t, begun, "an attempt begins")
	w.q.Rest()
	// One of the same function, and one of a function that had no work until now.
	later := []functions.InvocationID{w.accept(Request{}), w.accept(Request{Ref: other})}
	close(end)
	if st := w.ends(running); st.State != functions.StateSucceeded || len(st.Attempts) != 1 {
		t.Errorf("what ran ended as %+v", st)
	}
	w.stop()
	for _, id := range later {
		if n := c.of(id); n > 0 {
			t.Errorf("%d attempts were made while the queue rested", n)
		}
	}
	w = start(t, dir, run, Config{})
	for _, id := range later {
		if st := w.ends(id); st.State != functions.StateSucceeded || c.of(id) != 1 {
			t.Errorf("%d attempts, %+v", c.of(id), st)
		}
	}
	if c.of(running) != 1 {
		t.Errorf("what ran is run again: %d attempts", c.of(running))
	}
	w.empty()
}
