package queue

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
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

// The same for an attempt whose retry is stored: the retry is made, and not the attempt again.
func TestALostAcknowledgementOfARetry(t *testing.T) {
	t.Parallel()
	var c calls
	var w *world
	run := newDataPath(t, 1, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if c.add(r) == 1 {
			w.q.mu.Lock()
			w.q.held[functions.InvocationID(r.Header.Get(headerInvocation))].reply = "nobody.listens"
			w.q.mu.Unlock()
			rw.Header().Set("Retry-After", "3")
			rw.WriteHeader(503)
		}
	}))
	run.deploy(hello, nil)
	w = start(t, t.TempDir(), run, Config{})
	id := w.accept(Request{})
	w.until("the retry is stored and the attempt's message is nobody's", func() bool {
		seq, err := w.q.lastOf(t.Context(), mustSubject(bus.ScheduledSubject(id)))
		w.q.mu.Lock()
		defer w.q.mu.Unlock()
		return err == nil && seq > 0 && len(w.q.held) == 0
	})
	if err := w.bus.Invocations().DeleteConsumer(t.Context(), bus.ConsumerName(hello)); err != nil {
		t.Fatal(err)
	}
	if st := w.ends(id); st.State != functions.StateSucceeded || len(st.Attempts) != 2 || c.of(id) != 2 {
		t.Errorf("%d attempts, %+v", c.of(id), st)
	}
	w.empty()
}

// What was fetched ahead and not run comes back as it was when the process ends..
func TestWhatIsInHandGoesBack(t *testing.T) {
	t.Parallel()
	var c calls
	begun, end := make(chan struct{}, 100), make(chan struct{})
	run := newDataPath(t, 1, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		c.add(r)
		begun <- struct{}{}
		hold(r, end)
	}))
	run.deploy(hello, nil)
	dir := t.TempDir()
	w := start(t, dir, run, Config{})
	var ids []functions.InvocationID
	for range 20 {
		ids = append(ids, w.accept(Request{}))
	}
	receive(t, begun, "an attempt begins")
	w.until("a message is in hand", func() bool {
		w.q.mu.Lock()
		defer w.q.mu.Unlock()
		return len(w.q.held) > 1
	})
	stopped := make(chan struct{})
	go func() { w.stop(); close(stopped) }()
	w.until("the lanes have ended", func() bool { return w.q.lanesCtx.Err() != nil })
	close(end)
	receive(t, stopped, "the queue has ended")
	w = start(t, dir, run, Config{})
	for _, id := range ids {
		if st := w.ends(id); st.State != functions.StateSucceeded || len(st.Attempts) != 1 || c.of(id) != 1 {
			t.Errorf("%d attempts, %+v", c.of(id), st)
		}
	}
	w.empty()
}

// A slow or poisoned function holds up nobody else's queue.
func TestOneFunctionNeverDelaysAnother(t *testing.T) {
	t.Parallel()
	end := make(chan struct{})
	run := newDataPath(t, 8, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/hang":
			hold(r, end)
		case "/poison":
			w.WriteHeader(500)
		}
	}))
	refs := map[string]functions.Ref{}
	for _, name := range []string{"hang", "poison", "starved", "good"} {
		refs[name] = functions.Ref{Namespace: "default", Name: name}
		run.deploy(refs[name], nil)
	}
	// Four slots hang, and one function gets no lease at all.
	w := start(t, t.TempDir(), run, Config{BackoffBase: time.Millisecond, BackoffMax: time.Millisecond})
	defer close(end)
	run.set(func() { run.leaseErr[refs["starved"]] = fault.New(fault.CodeNoCapacity, "no room") })
	for range 4 {
		w.accept(Request{Ref: refs["hang"], Path: "/hang"})
	}
	var poisoned, good []functions.InvocationID
	for range 200 {
		poisoned = append(poisoned, w.accept(Request{Ref: refs["poison"], Path: "/poison"}))
		w.accept(Request{Ref: refs["starved"]})
	}
	for range 50 {
		good = append(good, w.accept(Request{Ref: refs["good"]}))
	}
	for _, id := range good {
		if st := w.ends(id); st.State != functions.StateSucceeded {
			t.Errorf("%+v", st)
		}
	}
	for _, id := range poisoned {
		if st := w.ends(id); st.State != functions.StateDead {
			t.Errorf("%+v", st)
		}
	}
	if d := w.q.Depth(refs["starved"]); d.Pending != 200 {
		t.Errorf("those that no lease came for: %+v", d)
	}
	if d := w.q.Depth(refs["hang"]); d.Running != 4 {
		t.Errorf("those that hang: %+v", d)
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
		receive(t, accepted, "all are accepted")
	}
	asked := w.requests()
	w.q.mu.Lock()
	l := w.q.lanes[hello.Hash()]
	w.q.mu.Unlock()
	l.mu.Lock()
	// Whatever an attempt takes on this machine, it is short then.
	w.q.horizon = time.Minute
	l.mu.Unlock()
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
	var most atomic.Int64
	var w *world
	run := newDataPath(t, 2, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		time.Sleep(30 * time.Millisecond)
		w.q.mu.Lock()
		l := w.q.lanes[hello.Hash()]
		w.q.mu.Unlock()
		l.mu.Lock()
		defer l.mu.Unlock()
		most.Store(max(most.Load(), int64(len(l.hand))))
	}))
	run.deploy(hello, nil)
	w = start(t, t.TempDir(), run, Config{})
	for range 30 {
		w.accept(Request{})
	}
	w.empty()
	// One that the standing request brought, and one for each slot that was served by another meanwhile.
	if n := most.Load(); n > 3 {
		t.Errorf("%d messages waited in hand for two slots", n)
	}
}
