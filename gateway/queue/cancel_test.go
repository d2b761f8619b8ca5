package queue

import (
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

func (w *world) cancels(id functions.InvocationID) {
	w.t.Helper()
	st, err := w.q.Cancel(w.t.Context(), id)
	if err != nil || st.State != functions.StateCancelled {
		w.t.Fatalf("cancelling %s: %+v, %v", id, st, err)
	}
}

func TestWhatWaitsIsCancelledAtOnce(t *testing.T) {
	t.Parallel()
	var seen calls
	run := newDataPath(t, 0, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { seen.add(r) }))
	run.deploy(hello, nil)
	w := start(t, t.TempDir(), run, Config{InlineBody: 64})
	// The first is in hand and waits for a lease, the others lie in the stream.
	var ids []functions.InvocationID
	for range 5 {
		ids = append(ids, w.accept(Request{Body: []byte(strings.Repeat("x", 100))}))
	}
	w.until("the first is in hand", func() bool { _, ok := w.q.inHand(ids[0]); return ok })
	for _, i := range []int{0, 2, 4} {
		w.cancels(ids[i])
		w.cancels(ids[i])
	}
	w.until("the cancelled ones count no more", func() bool { return w.q.Depth(hello).Pending == 2 })
	run.set(func() { run.free = 2 })
	for i, id := range ids {
		st, want := w.ends(id), functions.StateSucceeded
		if i%2 == 0 {
			want = functions.StateCancelled
		}
		if st.State != want || seen.of(id) != i%2 || len(st.Attempts) != i%2 {
			t.Errorf("%d: %d runs, %+v", i, seen.of(id), st)
		}
	}
	w.empty()
	w.until("no depth is left", func() bool { return w.q.Depth(hello) == (Depth{}) })
	w.until("no body is left", func() bool {
		objects, err := w.bus.Bodies().List(t.Context())
		return err == nil && len(objects) == 0
	})
}

func TestWhatRunsHasItsRequestClosed(t *testing.T) {
	t.Parallel()
	began, closed := make(chan struct{}, 1), make(chan struct{})
	run := newDataPath(t, 1, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		began <- struct{}{}
		<-r.Context().Done()
		close(closed)
	}))
	run.deploy(hello, nil)
	w := start(t, t.TempDir(), run, Config{})
	id := w.accept(Request{})
	receive(t, began, "the attempt begins")
	w.cancels(id)
	receive(t, closed, "its request is closed")
	st := w.ends(id)
	if len(st.Attempts) != 1 || st.Attempts[0].Error != string(fault.CodeConflict) || st.Result.Status != 0 {
		t.Errorf("%+v", st)
	}
	w.empty()
	if _, err := w.q.ShowDead(t.Context(), id); fault.CodeOf(err) != fault.CodeInvocationNotFound {
		t.Errorf("a cancelled invocation has a dead letter: %v", err)
	}
}

func TestWhatWaitsForItsRetryIsCancelled(t *testing.T) {
	t.Parallel()
	var seen calls
	run := newDataPath(t, 1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen.add(r)
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	run.deploy(hello, nil)
	w := start(t, t.TempDir(), run, Config{})
	id := w.accept(Request{})
	w.until("it waits for its retry", func() bool {
		st, err := w.q.Lookup(t.Context(), id, 0)
		return err == nil && st.State == functions.StateRetryWait
	})
	w.cancels(id)
	if st := w.ends(id); len(st.Attempts) != 1 || seen.of(id) != 1 {
		t.Errorf("%+v", st)
	}
	w.empty()
}

func TestWhatHasEndedIsNotCancelled(t *testing.T) {
	t.Parallel()
	run := newDataPath(t, 1, http.HandlerFunc(echo))
	run.deploy(hello, nil)
	w := start(t, t.TempDir(), run, Config{})
	id := w.accept(Request{})
	w.ends(id)
	st, err := w.q.Cancel(t.Context(), id)
	wantCode(t, err, fault.CodeConflict)
	if st.State != functions.StateSucceeded {
		t.Errorf("%+v", st)
	}
	for _, id := range []functions.InvocationID{functions.NewInvocationID(hello), "inv_x"} {
		_, err := w.q.Cancel(t.Context(), id)
		wantCode(t, err, fault.CodeInvocationNotFound)
	}
}

// Cancelling and running race: each invocation ends in one way, and none begins once it is cancelled.
func TestCancellingRacesWithRunning(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	cancelled, late := map[string]bool{}, 0
	run := newDataPath(t, 4, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if cancelled[r.Header.Get(headerInvocation)] {
			late++
		}
	}))
	run.deploy(hello, nil)
	w := start(t, t.TempDir(), run, Config{})
	const n = 400
	ids := make([]functions.InvocationID, n)
	for i := range ids {
		ids[i] = w.accept(Request{})
	}
	var group sync.WaitGroup
	for part := range 8 {
		group.Go(func() {
			// From the back, where they wait longest.
			for i := n - 1 - part; i >= 0; i -= 8 {
				st, err := w.q.Cancel(t.Context(), ids[i])
				switch {
				case err == nil && st.State == functions.StateCancelled:
					mu.Lock()
					// A request that was on its way is closed and was not begun anew.
					cancelled[string(ids[i])] = len(st.Attempts) == 0
					mu.Unlock()
				case fault.CodeOf(err) == fault.CodeConflict && st.State == functions.StateSucceeded:
				default:
					t.Errorf("cancel: %+v, %v", st, err)
				}
			}
		})
	}
	group.Wait()
	for _, id := range ids {
		w.ends(id)
	}
	w.empty()
	w.until("the counts are right", func() bool { return w.q.Depth(hello) == (Depth{}) })
	mu.Lock()
	defer mu.Unlock()
	if late > 0 {
		t.Errorf("%d attempts began after the invocation was cancelled", late)
	}
}

// What is delivered while it is being cancelled, and waits for a lease, does not begin once that is over.
func TestWhatComesWhileItIsCancelledDoesNotBegin(t *testing.T) {
	t.Parallel()
	var seen calls
	run := newDataPath(t, 1, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen.add(r) }))
	run.deploy(hello, nil)
	w := start(t, t.TempDir(), run, Config{})
	// The first has the consumer made: what follows is new to it, so that nobody looks for its record.
	w.ends(w.accept(Request{}))
	run.set(func() { run.free = 0 })
	id := w.accept(Request{})
	w.until("it is in hand", func() bool { _, ok := w.q.inHand(id); return ok })
	// As Cancel does that came before the message.
	c := &cancellation{callers: 1}
	w.q.mu.Lock()
	w.q.cancelling[id] = c
	w.q.mu.Unlock()
	if st, err := w.q.cancelStored(t.Context(), id, c); err != nil || st.State != functions.StateCancelled {
		t.Fatalf("%+v, %v", st, err)
	}
	run.set(func() { run.free = 1 })
	w.ends(w.accept(Request{}))
	w.empty()
	w.until("the counts are right", func() bool { return w.q.Depth(hello) == (Depth{}) })
	if n := seen.of(id); n != 0 {
		t.Errorf("%d attempts began after the invocation was cancelled", n)
	}
}

func TestADelayedInvocationWaitsForItsTime(t *testing.T) {
	t.Parallel()
	at := make(chan time.Time, 1)
	run := newDataPath(t, 1, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { at <- time.Now() }))
	run.deploy(hello, func(c *functions.Config) { c.Queue.MaxAge = functions.Duration(time.Hour) })
	// The server would deliver it much later.
	w := start(t, t.TempDir(), run, Config{Backstop: time.Hour})
	due := time.Now().Add(1500 * time.Millisecond)
	id := w.accept(Request{NotBefore: due})
	// On a machine that stands still its time may have come by then.
	early := func() bool { return time.Now().Before(due) }
	st, err := w.q.Lookup(t.Context(), id, 0)
	if err != nil || early() && (st.State != functions.StateScheduled || !st.Next.Equal(due) || !st.Deadline.Equal(due.Add(time.Hour))) {
		t.Fatalf("%+v, %v", st, err)
	}
	if d := w.q.Depth(hello); (d.Scheduled != 1 || d.Pending != 0) && early() {
		t.Errorf("depth %+v", d)
	}
	if got := receive(t, at, "it runs"); got.Before(due) {
		t.Errorf("it ran %v before its time", due.Sub(got))
	}
	if st := w.ends(id); st.State != functions.StateSucceeded || st.Attempts[0].Number != 1 {
		t.Errorf("%+v", st)
	}
	w.empty()
	// One whose time has passed runs at once, one that is too far away is refused.
	w.ends(w.accept(Request{NotBefore: time.Now().Add(-time.Hour)}))
	for _, r := range []Request{
		{Ref: hello, NotBefore: time.Now().Add(MaxDelay + time.Hour)},
		{Ref: hello, NotBefore: time.Now().Add(time.Hour), Deadline: time.Now().Add(time.Minute)},
	} {
		_, err := w.q.Accept(t.Context(), r)
		wantCode(t, err, fault.CodeInvalidRequest)
		if f := fault.From(err); f.Field != "notBefore" {
			t.Errorf("the error names %q", f.Field)
		}
	}
}

func TestADelayedInvocationOutlivesTheProcessAndCanBeCancelled(t *testing.T) {
	t.Parallel()
	run := newDataPath(t, 1, http.HandlerFunc(echo))
	run.deploy(hello, nil)
	dir := t.TempDir()
	w := start(t, dir, run, Config{Backstop: time.Hour})
	due := time.Now().Add(3 * time.Second)
	soon, late := w.accept(Request{NotBefore: due}), w.accept(Request{NotBefore: due.Add(time.Hour)})
	w.stop()
	w = start(t, dir, run, Config{Backstop: time.Hour})
	// The first one's time may have come while the queue was away.
	if d := w.q.Depth(hello); d.Scheduled != 2 && time.Now().Before(due) {
		t.Errorf("depth %+v", d)
	}
	w.cancels(late)
	st := w.ends(soon)
	if st.State != functions.StateSucceeded || st.Attempts[0].Started.Before(due) {
		t.Errorf("%+v", st)
	}
	w.empty()
}

// A process that dies between the message of what came due and the end of its schedule has its successor remove that, whether the message waits still or
// its invocation has ended: it runs once.
func TestAScheduleThatOutlivesItsDelivery(t *testing.T) {
	t.Parallel()
	var c calls
	run := newDataPath(t, 0, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { c.add(r) }))
	run.deploy(hello, nil)
	dir := t.TempDir()
	w := start(t, dir, run, Config{Backstop: time.Hour})
	deliver := func(id functions.InvocationID) {
		t.Helper()
		scheduled, _ := bus.ScheduledSubject(id)
		waiting, _ := bus.InvocationSubject(id)
		m, err := w.bus.Invocations().GetLastMsgForSubject(t.Context(), scheduled)
		if err == nil {
			_, err = w.bus.Store(t.Context(), &nats.Msg{Subject: waiting, Data: m.Data, Header: nats.Header{bus.HeaderAttempt: {"1"}}})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	due := time.Now().Add(5 * time.Second)
	ran, waits := w.accept(Request{NotBefore: due}), w.accept(Request{NotBefore: due})
	w.q.alarms.unset(ran)
	w.q.alarms.unset(waits)
	deliver(ran)
	run.set(func() { run.free = 1 })
	w.ends(ran)
	run.set(func() { run.free = 0 })
	deliver(waits)
	w.until("it is in hand", func() bool { _, ok := w.q.inHand(waits); return ok })
	w.stop()
	run.set(func() { run.free = 4 })
	w = start(t, dir, run, Config{Backstop: time.Hour})
	w.empty()
	for _, id := range []functions.InvocationID{ran, waits} {
		if st := w.ends(id); st.State != functions.StateSucceeded || c.of(id) != 1 {
			t.Errorf("%+v after %d attempts", st, c.of(id))
		}
	}
	if d := w.q.Depth(hello); d != (Depth{}) {
		t.Errorf("depth %+v", d)
	}
}

// What no process delivers at its time the server does; where both do, it runs once.
func TestTheServerDeliversWhatNobodyElseDoes(t *testing.T) {
	t.Parallel()
	var c calls
	run := newDataPath(t, 4, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { c.add(r) }))
	run.deploy(hello, nil)
	w := start(t, t.TempDir(), run, Config{Backstop: time.Millisecond})
	due := time.Now().Add(500 * time.Millisecond)
	lonely := w.accept(Request{NotBefore: due})
	w.q.alarms.unset(lonely)
	ids := []functions.InvocationID{lonely}
	for range 50 {
		ids = append(ids, w.accept(Request{NotBefore: due}))
	}
	for _, id := range ids {
		if st := w.ends(id); st.State != functions.StateSucceeded || c.of(id) != 1 {
			t.Errorf("%+v after %d attempts", st, c.of(id))
		}
	}
	w.empty()
}

// A lease that cannot be had, and a function that is gone, keep nobody from cancelling.
func TestWhatThePlatformCannotRunIsCancelled(t *testing.T) {
	t.Parallel()
	run := newDataPath(t, 1, http.HandlerFunc(echo))
	run.deploy(hello, nil)
	run.leaseErr[hello] = fault.Wrap(fault.CodeNoCapacity, errors.New("full"), "no room")
	w := start(t, t.TempDir(), run, Config{})
	id := w.accept(Request{})
	w.until("it is in hand", func() bool { _, ok := w.q.inHand(id); return ok })
	w.cancels(id)
	w.empty()
}
