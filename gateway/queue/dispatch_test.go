package queue

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

func TestManyRunOnceEachOnAsManySlotsAsThereAre(t *testing.T) {
	t.Parallel()
	var c calls
	var now atomic.Int32
	all := make(chan struct{})
	run := newDataPath(t, 7, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		c.add(r)
		if now.Add(1) == 7 {
			close(all)
		}
		// The first seven wait for one another.
		hold(r, all)
	}))
	run.deploy(hello, nil)
	w := start(t, t.TempDir(), run, Config{})
	ids := make([]functions.InvocationID, 600)
	for i := range ids {
		ids[i] = w.accept(Request{})
	}
	for _, id := range ids {
		if st := w.ends(id); st.State != functions.StateSucceeded || c.of(id) != 1 {
			t.Fatalf("%d attempts, %+v", c.of(id), st)
		}
	}
	w.empty()
}

func TestAWaitingRetryHoldsNoSlotAndComesInTime(t *testing.T) {
	t.Parallel()
	var c calls
	run := newDataPath(t, 1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c.add(r) == 1 && r.URL.Path != "/" {
			w.Header().Set("Retry-After", r.URL.Path[1:])
			w.WriteHeader(429)
		}
	}))
	run.deploy(hello, nil)
	w := start(t, t.TempDir(), run, Config{})
	poison, soon := w.accept(Request{Path: "/3600"}), w.accept(Request{Path: "/2"})
	var others []functions.InvocationID
	for range 50 {
		others = append(others, w.accept(Request{}))
	}
	for _, id := range others {
		w.ends(id)
	}
	st := w.ends(soon)
	if st.State != functions.StateSucceeded || len(st.Attempts) != 2 {
		t.Fatalf("%+v", st)
	}
	if gap := st.Attempts[1].Started.Sub(st.Attempts[0].Ended); gap < 2*time.Second {
		t.Errorf("the function asked for 2s and got %s", gap)
	}
	st, err := w.q.Lookup(t.Context(), poison, 0)
	if err != nil || st.State != functions.StateRetryWait || st.Attempt != 2 || len(st.Attempts) != 1 || st.Next.IsZero() {
		t.Fatalf("the retry: %+v, error %v", st, err)
	}
	if d := w.q.Depth(hello); d.Scheduled != 1 || d.Pending != 0 {
		t.Errorf("depth %+v", d)
	}
}

func TestARetryOutlivesARestart(t *testing.T) {
	t.Parallel()
	var c calls
	run := newDataPath(t, 1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c.add(r) == 1 {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(503)
		}
	}))
	run.deploy(hello, nil)
	dir := t.TempDir()
	w := start(t, dir, run, Config{})
	id := w.accept(Request{})
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if st, err := w.q.Lookup(t.Context(), id, 0); err == nil && st.State == functions.StateRetryWait {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("%+v, %v", st, err)
		}
	}
	w.stop()
	w = start(t, dir, run, Config{})
	if d := w.q.Depth(hello); d.Scheduled+d.Pending+d.Running != 1 {
		t.Errorf("depth after the restart: %+v", d)
	}
	if st := w.ends(id); st.State != functions.StateSucceeded || len(st.Attempts) != 2 || c.of(id) != 2 {
		t.Errorf("%+v", st)
	}
	w.empty()
}

func TestThePlatformsTroubleIsNobodysAttempt(t *testing.T) {
	t.Parallel()
	run := newDataPath(t, 1, http.HandlerFunc(echo))
	run.deploy(hello, nil)
	w := start(t, t.TempDir(), run, Config{})
	run.set(func() { run.leaseErr[hello] = fault.New(fault.CodeNoCapacity, "no node has room") })
	id := w.accept(Request{})
	st, err := w.q.Lookup(t.Context(), id, 300*time.Millisecond)
	if err != nil || st.State != functions.StateAccepted || len(st.Attempts) != 0 {
		t.Fatalf("%+v, error %v", st, err)
	}
	told := func() int { run.mu.Lock(); defer run.mu.Unlock(); return run.backlog[hello] }
	for deadline := time.Now().Add(10 * time.Second); told() != 1; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the data path knows of a backlog of %d", told())
		}
	}
	run.set(func() { delete(run.leaseErr, hello) })
	if st := w.ends(id); st.State != functions.StateSucceeded || len(st.Attempts) != 1 {
		t.Errorf("%+v", st)
	}
}

// What the platform ended after the function may have seen it is an attempt, and the next one has a number of its own.
func TestAnInterruptedAttemptCounts(t *testing.T) {
	t.Parallel()
	run := newDataPath(t, 1, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	run.deploy(hello, nil)
	var tries atomic.Int64
	run.trip = func(*http.Request) (*http.Response, error) {
		if tries.Add(1) == 1 {
			return nil, fault.New(fault.CodeDraining, "the instance of hello ended before the answer: its node is gone")
		}
		return &http.Response{StatusCode: 200, Header: http.Header{}, Body: http.NoBody}, nil
	}
	w := start(t, t.TempDir(), run, Config{BackoffBase: time.Millisecond, BackoffMax: 2 * time.Millisecond})
	st := w.ends(w.accept(Request{}))
	if st.State != functions.StateSucceeded || len(st.Attempts) != 2 {
		t.Fatalf("%+v", st)
	}
	if a := st.Attempts[0]; a.Number != 1 || a.Error != string(fault.CodeDraining) || st.Attempts[1].Number != 2 {
		t.Errorf("%+v", st.Attempts)
	}
}

// An attempt whose worker vanished is made again at once: the function has not failed.
func TestAnAttemptThatLostItsWorkerDoesNotWait(t *testing.T) {
	t.Parallel()
	run := newDataPath(t, 1, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	run.deploy(hello, nil)
	var tries atomic.Int64
	run.trip = func(*http.Request) (*http.Response, error) {
		if tries.Add(1) == 1 {
			return nil, fault.New(fault.CodeUnavailable, "hello was cut off before its answer came")
		}
		return &http.Response{StatusCode: 200, Header: http.Header{}, Body: http.NoBody}, nil
	}
	w := start(t, t.TempDir(), run, Config{BackoffBase: time.Hour, BackoffMax: time.Hour})
	if st := w.ends(w.accept(Request{})); st.State != functions.StateSucceeded || len(st.Attempts) != 2 || st.Attempts[0].Error != string(fault.CodeUnavailable) {
		t.Errorf("%+v", st)
	}
}

func TestWhatCannotStartInTimeExpires(t *testing.T) {
	t.Parallel()
	run := newDataPath(t, 0, http.HandlerFunc(echo))
	run.deploy(hello, func(c *functions.Config) { c.Queue.MaxAge = functions.Duration(time.Second) })
	w := start(t, t.TempDir(), run, Config{})
	ids := []functions.InvocationID{w.accept(Request{}), w.accept(Request{}), w.accept(Request{})}
	for _, id := range ids {
		if st := w.ends(id); st.State != functions.StateExpired || len(st.Attempts) != 0 || st.Result.Reason == "" {
			t.Errorf("%+v", st)
		}
	}
	w.empty()
}

func TestAFunctionThatDoesNotStartFailsItsAttempts(t *testing.T) {
	t.Parallel()
	run := newDataPath(t, 1, http.HandlerFunc(echo))
	run.deploy(hello, func(c *functions.Config) { n := 1; c.Queue.Retries = &n })
	w := start(t, t.TempDir(), run, Config{})
	run.set(func() { run.leaseErr[hello] = fault.New(fault.CodeFunctionNotReady, "exited with code 1") })
	st := w.ends(w.accept(Request{}))
	if st.State != functions.StateDead || len(st.Attempts) != 2 || st.Attempts[0].Error != string(fault.CodeFunctionNotReady) ||
		!strings.Contains(st.Result.Reason, "exited with code 1") {
		t.Errorf("%+v, result %+v", st, st.Result)
	}
}

func TestTheQueueOfADeletedFunctionDies(t *testing.T) {
	t.Parallel()
	run := newDataPath(t, 0, http.HandlerFunc(echo))
	run.deploy(hello, nil)
	w := start(t, t.TempDir(), run, Config{})
	ids := []functions.InvocationID{w.accept(Request{}), w.accept(Request{})}
	run.set(func() { delete(run.revs, hello) })
	for _, id := range ids {
		st := w.ends(id)
		if st.State != functions.StateDead || !strings.Contains(st.Result.Reason, "deleted") {
			t.Errorf("%+v, result %+v", st, st.Result)
		}
		if _, err := w.q.ShowDead(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
}

func TestAnAttemptEndsAtTheFunctionsTimeout(t *testing.T) {
	t.Parallel()
	run := newDataPath(t, 1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/body" {
			w.WriteHeader(200)
			_ = http.NewResponseController(w).Flush()
		}
		<-r.Context().Done()
	}))
	run.deploy(hello, func(c *functions.Config) {
		n := 0
		c.Timeout, c.Queue.Retries = functions.Duration(150*time.Millisecond), &n
	})
	w := start(t, t.TempDir(), run, Config{})
	for _, path := range []string{"/head", "/body"} {
		st := w.ends(w.accept(Request{Path: path}))
		if st.State != functions.StateDead || len(st.Attempts) != 1 || st.Attempts[0].Error != string(fault.CodeFunctionTimeout) || st.Result.Status != 0 {
			t.Errorf("%s: %+v", path, st)
		}
	}
}

func TestALongAttemptIsNotDeliveredAgain(t *testing.T) {
	t.Parallel()
	var c calls
	begun, end := make(chan struct{}, 10), make(chan struct{}, 10)
	run := newDataPath(t, 4, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		c.add(r)
		begun <- struct{}{}
		hold(r, end)
	}))
	run.deploy(hello, nil)
	const wait = 500 * time.Millisecond
	w := start(t, t.TempDir(), run, Config{AckWait: wait})
	// A machine that stands still for longer than that loses the lease all the same: not each time.
	const tries = 6
	for try := 1; ; try++ {
		id := w.accept(Request{})
		receive(t, begun, "the attempt begins")
		if st, err := w.q.Lookup(t.Context(), id, 0); err != nil || st.State != functions.StateRunning || st.Started.IsZero() {
			t.Errorf("%+v, error %v", st, err)
		}
		time.Sleep(3 * wait)
		cons, err := w.bus.Invocations().Consumer(t.Context(), bus.ConsumerName(hello))
		if err != nil {
			t.Fatal(err)
		}
		again := cons.CachedInfo().NumRedelivered
		end <- struct{}{}
		if st := w.ends(id); len(st.Attempts) != 1 || c.of(id) != 1 {
			t.Errorf("%d attempts, %+v", c.of(id), st)
		}
		if again == 0 {
			return
		}
		if try == tries {
			t.Fatalf("the message is delivered again while its attempt runs, each time of %d", tries)
		}
	}
}

func TestTheFirstTerminalRecordStands(t *testing.T) {
	t.Parallel()
	begun, end := make(chan struct{}), make(chan struct{})
	run := newDataPath(t, 1, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { close(begun); hold(r, end) }))
	run.deploy(hello, nil)
	w := start(t, t.TempDir(), run, Config{})
	id := w.accept(Request{})
	receive(t, begun, "the attempt begins")
	first := functions.Result{Schema: 1, ID: id, Namespace: "default", Function: "hello", State: functions.StateCancelled,
		Reason: "somebody was faster", Attempts: []functions.Attempt{}, Finished: time.Now().UTC()}
	if _, err := w.bus.Results().Create(t.Context(), bus.ResultKey(id), first); err != nil {
		t.Fatal(err)
	}
	close(end)
	if st := w.ends(id); st.State != functions.StateCancelled || st.Result.Reason != first.Reason {
		t.Errorf("%+v", st)
	}
	w.empty()
}

func TestWhatEndedIsNotRunAgain(t *testing.T) {
	t.Parallel()
	var c calls
	run := newDataPath(t, 0, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { c.add(r) }))
	run.deploy(hello, nil)
	dir := t.TempDir()
	w := start(t, dir, run, Config{})
	ids := []functions.InvocationID{w.accept(Request{}), w.accept(Request{}), w.accept(Request{})}
	// As if the process had died after the record and before the acknowledgement; the second one also before the dead letter.
	for i, state := range []functions.InvocationState{functions.StateSucceeded, functions.StateDead} {
		rec := functions.Result{Schema: 1, ID: ids[i], Namespace: "default", Function: "hello", State: state, Reason: "boom",
			Attempts: []functions.Attempt{{Number: 1}}, Finished: time.Now().UTC()}
		if _, err := w.bus.Results().Create(t.Context(), bus.ResultKey(ids[i]), rec); err != nil {
			t.Fatal(err)
		}
	}
	// And as if it had died between the retry's message and the acknowledgement.
	inv, err := w.bus.Invocations().GetLastMsgForSubject(t.Context(), mustSubject(bus.InvocationSubject(ids[2])))
	if err != nil {
		t.Fatal(err)
	}
	again, err := bus.Decode[functions.Invocation](inv.Data)
	if err != nil {
		t.Fatal(err)
	}
	w.stop()
	w = start(t, dir, run, Config{})
	h := &held{lane: &lane{q: w.q}, id: ids[2], seq: inv.Sequence, tally: w.q.tallyOf(hello), reply: "nobody"}
	w.q.reschedule(h, &again, &outcome{attempt: functions.Attempt{Number: 1, Ended: time.Now()}}, 300*time.Millisecond)
	run.set(func() { run.free = 1 })
	for i, id := range ids {
		st := w.ends(id)
		want := 0
		if i == 2 {
			want = 1
		}
		if c.of(id) != want {
			t.Errorf("%d: %d attempts were made, want %d: %+v", i, c.of(id), want, st)
		}
	}
	if letter, err := w.q.ShowDead(t.Context(), ids[1]); err != nil || letter.Reason != "boom" || len(letter.Invocation.History) != 1 {
		t.Errorf("the dead letter was not made up for: %+v, error %v", letter, err)
	}
	w.empty()
}

func mustSubject(s string, ok bool) string {
	if !ok {
		panic("no subject")
	}
	return s
}

func TestRunDrainsAndCutsWhatTakesTooLong(t *testing.T) {
	t.Parallel()
	var c calls
	begun := make(chan struct{}, 8)
	run := newDataPath(t, 4, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		n := c.add(r)
		begun <- struct{}{}
		if r.URL.Path == "/short" {
			time.Sleep(100 * time.Millisecond)
		} else if n == 1 {
			<-r.Context().Done()
		}
	}))
	run.deploy(hello, nil)
	dir := t.TempDir()
	w := start(t, dir, run, Config{Drain: 2 * time.Second})
	short, long := w.accept(Request{Path: "/short"}), w.accept(Request{Path: "/long"})
	for range 2 {
		receive(t, begun, "both attempts begin")
	}
	w.stop()
	w = start(t, dir, run, Config{})
	if st := w.ends(short); len(st.Attempts) != 1 || c.of(short) != 1 {
		t.Errorf("short: %d attempts, %+v", c.of(short), st)
	}
	if st := w.ends(long); st.State != functions.StateSucceeded || len(st.Attempts) != 1 || c.of(long) != 2 {
		t.Errorf("long: %d attempts, %+v", c.of(long), st)
	}
	w.empty()
}

func TestALaneEndsWhenIdleAndComesBack(t *testing.T) {
	t.Parallel()
	run := newDataPath(t, 1, http.HandlerFunc(echo))
	run.deploy(hello, nil)
	w := start(t, t.TempDir(), run, Config{IdleAfter: 100 * time.Millisecond})
	lanes := func() int { w.q.mu.Lock(); defer w.q.mu.Unlock(); return len(w.q.lanes) }
	for range 3 {
		w.ends(w.accept(Request{}))
		for deadline := time.Now().Add(10 * time.Second); lanes() > 0; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("the lane is still there")
			}
		}
	}
}

func TestAConsumerThatIsLostIsMadeAnew(t *testing.T) {
	t.Parallel()
	run := newDataPath(t, 1, http.HandlerFunc(echo))
	run.deploy(hello, nil)
	w := start(t, t.TempDir(), run, Config{})
	w.ends(w.accept(Request{}))
	if err := w.bus.Invocations().DeleteConsumer(t.Context(), bus.ConsumerName(hello)); err != nil {
		t.Fatal(err)
	}
	w.ends(w.accept(Request{}))
}

func TestLookupsOfNothing(t *testing.T) {
	t.Parallel()
	run := newDataPath(t, 1, http.HandlerFunc(echo))
	w := start(t, t.TempDir(), run, Config{})
	for _, id := range []functions.InvocationID{"", "inv_", "inv_*.>", functions.NewInvocationID(hello)} {
		_, err := w.q.Lookup(t.Context(), id, time.Minute)
		wantCode(t, err, fault.CodeInvocationNotFound)
	}
}

func TestListsFollowTheStates(t *testing.T) {
	t.Parallel()
	run := newDataPath(t, 0, http.HandlerFunc(echo))
	run.deploy(hello, nil)
	other := functions.Ref{Namespace: "ns", Name: "other"}
	run.deploy(other, nil)
	w := start(t, t.TempDir(), run, Config{})
	for i := range 5 {
		ref := hello
		if i > 2 {
			ref = other
		}
		w.accept(Request{Ref: ref, Path: fmt.Sprintf("/%d", i)})
	}
	list := func(ref functions.Ref, state functions.InvocationState, limit, want int) []Status {
		t.Helper()
		got, err := w.q.List(t.Context(), ref, state, limit)
		if err != nil || len(got) != want {
			t.Fatalf("list of %q %q: %d, want %d, error %v", ref, state, len(got), want, err)
		}
		return got
	}
	list(functions.Ref{}, "", 10, 5)
	list(hello, functions.StateAccepted, 10, 3)
	list(other, "", 10, 2)
	list(hello, "", 2, 2)
	list(hello, functions.StateRetryWait, 10, 0)
	run.set(func() { run.free = 1 })
	w.empty()
	list(functions.Ref{}, "", 10, 0)
	list(hello, functions.StateSucceeded, 10, 3)
	list(functions.Ref{}, functions.StateSucceeded, 4, 4)
	list(other, functions.StateDead, 10, 0)
}

func TestAWaitEndsWithItsContext(t *testing.T) {
	t.Parallel()
	run := newDataPath(t, 0, http.HandlerFunc(echo))
	run.deploy(hello, nil)
	w := start(t, t.TempDir(), run, Config{})
	id := w.accept(Request{})
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	st, err := w.q.Lookup(ctx, id, time.Minute)
	if err != nil || st.State != functions.StateAccepted {
		t.Errorf("%+v, error %v", st, err)
	}
	w.q.mu.Lock()
	defer w.q.mu.Unlock()
	if len(w.q.waiters) != 0 {
		t.Errorf("%d waiters are left behind", len(w.q.waiters))
	}
}

func TestAFailedSyncStopsTheQueue(t *testing.T) {
	t.Parallel()
	run := newDataPath(t, 1, http.HandlerFunc(echo))
	run.deploy(hello, nil)
	dir, b, q, done := startOver(t, run, Config{})
	id, err := q.Accept(t.Context(), Request{Ref: hello})
	if err != nil {
		t.Fatal(err)
	}
	if st, err := q.Lookup(t.Context(), id, 10*time.Second); err != nil || !st.State.Terminal() {
		t.Fatalf("%+v, error %v", st, err)
	}
	// The server makes a new block when the last message of one is acknowledged: that must not be what fails.
	(&world{t: t, bus: b}).empty()
	failDisk(t, dir)
	_, err = q.Accept(t.Context(), Request{Ref: hello})
	wantCode(t, err, fault.CodeUnavailable)
	select {
	case err := <-done:
		wantCode(t, err, fault.CodeUnavailable)
	case <-time.After(20 * time.Second):
		t.Fatal("Run goes on without a store")
	}
	_, err = q.Accept(t.Context(), Request{Ref: hello})
	if k := fault.KindOf(err); k != fault.Unavailable {
		t.Errorf("acceptance after the failure: %v", err)
	}
}
