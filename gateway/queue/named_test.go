package queue

import (
	"net/http"
	"sync"
	"testing"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

// A request that is handed over again under the id that it had becomes one invocation: while that waits, and when it has ended.
func TestOneInvocationUnderAnID(t *testing.T) {
	t.Parallel()
	run := newDataPath(t, 0, http.HandlerFunc(echo))
	run.deploy(hello, func(*functions.Config) {})
	w := start(t, t.TempDir(), run, Config{})
	ask := Request{ID: functions.NewInvocationID(hello), Body: []byte("hi")}
	again := ask
	again.Again = true
	if got := w.submit(ask); got.ID != ask.ID {
		t.Errorf("it is accepted as %s", got.ID)
	}
	if got := w.submit(again); got.ID != ask.ID {
		t.Errorf("again it is accepted as %s", got.ID)
	}
	run.set(func() { run.free = 1 })
	w.ends(ask.ID)
	if got := w.submit(again); got.ID != ask.ID {
		t.Errorf("after its end it is accepted as %s", got.ID)
	}
	// Nobody has seen this one before; many hand it over at once.
	again.ID = functions.NewInvocationID(hello)
	var many sync.WaitGroup
	for range 5 {
		many.Go(func() {
			r := again
			r.Ref = hello
			if got, err := w.q.Submit(t.Context(), r); err != nil || got.ID != again.ID {
				t.Errorf("%+v %v", got, err)
			}
		})
	}
	many.Wait()
	for _, id := range []functions.InvocationID{ask.ID, again.ID} {
		if st := w.ends(id); st.State != functions.StateSucceeded || len(st.Attempts) != 1 {
			t.Errorf("%+v", st)
		}
	}
	w.empty()
}

func TestAnIDIsTheFunctions(t *testing.T) {
	t.Parallel()
	run := newDataPath(t, 1, http.HandlerFunc(echo))
	run.deploy(hello, func(*functions.Config) {})
	w := start(t, t.TempDir(), run, Config{})
	for _, id := range []functions.InvocationID{"x", functions.NewInvocationID(functions.Ref{Namespace: "default", Name: "another"})} {
		_, err := w.q.Submit(t.Context(), Request{Ref: hello, ID: id})
		wantCode(t, err, fault.CodeInvalidRequest)
	}
}
