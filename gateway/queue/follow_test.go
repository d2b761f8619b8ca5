package queue

import (
	"net/http"
	"testing"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

func TestFollowTellsEachState(t *testing.T) {
	t.Parallel()
	begun, end := make(chan struct{}, 10), make(chan struct{})
	run := newDataPath(t, 0, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { begun <- struct{}{}; hold(r, end) }))
	run.deploy(hello, nil)
	w := start(t, t.TempDir(), run, Config{})
	id := w.accept(Request{})
	told, done := make(chan functions.InvocationState, 10), make(chan error, 1)
	go func() {
		done <- w.q.Follow(t.Context(), id, func(st Status) error { told <- st.State; return nil })
	}()
	if st := receive(t, told, "a state is told"); st != functions.StateAccepted {
		t.Errorf("first told %s", st)
	}
	run.set(func() { run.free = 1 })
	receive(t, begun, "the attempt begins")
	if st := receive(t, told, "a state is told"); st != functions.StateRunning {
		t.Errorf("then told %s", st)
	}
	close(end)
	if st := receive(t, told, "a state is told"); st != functions.StateSucceeded {
		t.Errorf("at last told %s", st)
	}
	if err := receive(t, done, "following ends"); err != nil {
		t.Error(err)
	}
	err := w.q.Follow(t.Context(), "inv_nobody", func(Status) error { return nil })
	wantCode(t, err, fault.CodeInvocationNotFound)
}
