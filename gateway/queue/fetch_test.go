package queue

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
)

// An acknowledgement that is lost together with its consumer brings the message back as if it had never been delivered: what ended is
// not run again all the same, and its record stands.
func TestAnAcknowledgementThatIsLost(t *testing.T) {
	t.Parallel()
	var c calls
	var w *world
	run := newDataPath(t, 1, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		c.add(r)
		w.q.mu.Lock()
		w.q.held[functions.InvocationID(r.Header.Get(headerInvocation))].reply = "nobody.listens"
		w.q.mu.Unlock()
	}))
	run.deploy(hello, nil)
	w = start(t, t.TempDir(), run, Config{})
	var ids []functions.InvocationID
	for range 20 {
		ids = append(ids, w.accept(Request{}))
	}
	ends := map[functions.InvocationID]time.Time{}
	for _, id := range ids {
		ends[id] = w.ends(id).Result.Finished
	}
	if info, err := w.bus.Invocations().Info(t.Context()); err != nil || info.State.Msgs != 20 {
		t.Fatalf("%+v, %v: nothing to deliver again", info, err)
	}
	if err := w.bus.Invocations().DeleteConsumer(t.Context(), bus.ConsumerName(hello)); err != nil {
		t.Fatal(err)
	}
	w.empty()
	for _, id := range ids {
		if st := w.ends(id); c.of(id) != 1 || !st.Result.Finished.Equal(ends[id]) {
			t.Errorf("%d attempts, %+v", c.of(id), st)
		}
	}
}

// requests counts how often messages are asked for.
func (w *world) requests() *atomic.Int64 {
	w.t.Helper()
	n := &atomic.Int64{}
	sub, err := w.bus.Conn().Subscribe("$JS.API.CONSUMER.MSG.NEXT."+bus.StreamInvocations+".*", func(*nats.Msg) { n.Add(1) })
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = sub.Unsubscribe() })
	if err := w.bus.Conn().Flush(); err != nil {
		w.t.Fatal(err)
	}
	return n
}

// Short attempts fetch many messages with one request.
func TestShortAttemptsFetchAhead(t *testing.T) {
	t.Parallel()
	run := newDataPath(t, 0, http.HandlerFunc(echo))
	run.trip = noop
	run.deploy(hello, nil)
	w := start(t, t.TempDir(), run, Config{})
	const many = 4000
	accepted := make(chan functions.InvocationID, many)
	for range 16 {
		go func() {
			for range many / 16 {
				id, err := w.q.Accept(t.Context(), Request{Ref: hello})
				if err != nil {
					t.Error(err)
				}
				accepted <- id
			}
		}()
	}
	for range many {
		<-accepted
	}
	asked := w.requests()
	run.set(func() { run.free = 16 })
	w.empty()
	if n := asked.Load(); n > many/4 {
		t.Errorf("%d requests for %d messages", n, many)
	}
}

// Long attempts do not: a message that nobody can run yet stays where others could take it, but for the one that the standing request
// brought.
func TestLongAttemptsDoNot(t *testing.T) {
	t.Parallel()
	most := 0
	var w *world
	run := newDataPath(t, 2, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		time.Sleep(30 * time.Millisecond)
		w.q.mu.Lock()
		most = max(most, len(w.q.held))
		w.q.mu.Unlock()
	}))
	run.deploy(hello, nil)
	w = start(t, t.TempDir(), run, Config{})
	for range 30 {
		w.accept(Request{})
	}
	w.empty()
	w.q.mu.Lock()
	defer w.q.mu.Unlock()
	// Two run, two may be about to be stored, one is in hand.
	if most > 5 {
		t.Errorf("%d messages at once in the hands of a process that runs two", most)
	}
}
