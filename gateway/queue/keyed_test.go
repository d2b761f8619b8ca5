package queue

import (
	"crypto/rand"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

func TestARepeatedKeyIsOneInvocation(t *testing.T) {
	t.Parallel()
	var c calls
	run := newDataPath(t, 4, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.add(r)
		body, _ := io.ReadAll(r.Body)
		_, _ = w.Write(body)
	}))
	run.deploy(hello, func(c *functions.Config) { c.Queue.MaxPending = 100 })
	other := functions.Ref{Namespace: "ns", Name: "hello"}
	run.deploy(other, nil)
	dir := t.TempDir()
	w := start(t, dir, run, Config{InlineBody: 1 << 10})
	large := strings.Repeat("y", 4<<10)
	first := w.submit(Request{Key: "k", Body: []byte("hi")})
	big := w.submit(Request{Key: "big", BodyReader: strings.NewReader(large)})
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if got := w.submit(Request{Key: "k", Body: []byte("hi")}); got.ID != first.ID || !got.Replayed {
				t.Errorf("a repetition gave %+v", got)
			}
		})
	}
	wg.Wait()
	if got := w.submit(Request{Key: "big", BodyReader: strings.NewReader(large)}); got.ID != big.ID {
		t.Errorf("a repetition with a large body gave %+v", got)
	}
	for name, r := range map[string]Request{
		"another function": {Ref: other, Key: "k", Body: []byte("hi")},
		"another caller":   {Caller: "c", Key: "k", Body: []byte("hi")},
		"another key":      {Key: "kk", Body: []byte("hi")},
	} {
		if got := w.submit(r); got.ID == first.ID || got.Replayed {
			t.Errorf("%s: %+v", name, got)
		}
	}
	for name, r := range map[string]Request{
		"method": {Method: "PUT", Body: []byte("hi")}, "path": {Path: "/x", Body: []byte("hi")}, "query": {Query: "x", Body: []byte("hi")},
		"body": {Body: []byte("ho")}, "large body": {BodyReader: strings.NewReader(large)},
	} {
		r.Ref, r.Key = hello, "k"
		_, err := w.q.Submit(t.Context(), r)
		if !fault.Is(err, fault.CodeKeyMismatch) {
			t.Errorf("another %s: %v", name, err)
		}
	}
	if st := w.ends(big.ID); w.body(st.Result) != large {
		t.Error("the large body was lost")
	}
	w.ends(first.ID)
	w.empty()
	w.stop()
	w = start(t, dir, run, Config{})
	if got := w.submit(Request{Key: "k", Body: []byte("hi")}); got.ID != first.ID || !got.Replayed {
		t.Errorf("after a restart a repetition gave %+v", got)
	}
	if c.of(first.ID) != 1 {
		t.Errorf("%d attempts", c.of(first.ID))
	}
	bodies, err := w.bus.Bodies().List(t.Context())
	if err != nil || len(bodies) > 1 {
		// The answer of the large one.
		t.Errorf("bodies stay: %v, error %v", bodies, err)
	}
}

func TestAKeyIsAnsweredWhereTheQueueIsFull(t *testing.T) {
	t.Parallel()
	run := newDataPath(t, 0, http.HandlerFunc(echo))
	run.deploy(hello, func(c *functions.Config) { c.Queue.MaxPending = 1 })
	w := start(t, t.TempDir(), run, Config{})
	first := w.submit(Request{Key: "k"})
	if got := w.submit(Request{Key: "k"}); got.ID != first.ID {
		t.Errorf("got %+v", got)
	}
	_, err := w.q.Submit(t.Context(), Request{Ref: hello, Key: "other"})
	wantCode(t, err, fault.CodeQueueFull)
	if d := w.q.Depth(hello); d.Pending != 1 {
		t.Errorf("depth %+v", d)
	}
}

// pending writes the record of a key as a process of an earlier version leaves it that is killed before the message is stored: without the invocation.
func (w *world) pending(r Request) functions.KeyRecord {
	w.t.Helper()
	return w.pendingWith(r, false)
}

// pendingWith writes the record of a key as a process leaves it that is killed before the message is stored.
func (w *world) pendingWith(r Request, whole bool) functions.KeyRecord {
	w.t.Helper()
	if err := r.complete(); err != nil {
		w.t.Fatal(err)
	}
	rev, err := w.run.Lookup(w.t.Context(), r.Ref)
	if err != nil {
		w.t.Fatal(err)
	}
	inv := r.invocation(rev)
	rec := functions.KeyRecord{Schema: 1, ID: inv.ID, Namespace: r.Ref.Namespace, Function: r.Ref.Name, State: functions.KeyPending,
		Request: requestHash("queued", r.Method, r.Path, r.Query, bodyHash(&inv)), Created: r.now, Until: r.now.Add(time.Hour)}
	if whole {
		rec.Invocation = &inv
	}
	if _, err := w.bus.Keys().Put(w.t.Context(), keyHash(r.Ref, r.Caller, r.Key), &rec, 0); err != nil {
		w.t.Fatal(err)
	}
	return rec
}

// What a process left pending that was killed in between is stored at the next start, once, though nobody repeats the request. A record that cannot
// be read keeps none of the others from it.
func TestAPendingKeyIsStoredAtTheStart(t *testing.T) {
	t.Parallel()
	var c calls
	run := newDataPath(t, 4, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { c.add(r) }))
	run.deploy(hello, nil)
	dir := t.TempDir()
	w := start(t, dir, run, Config{})
	newer := functions.KeyRecord{Schema: 99, State: functions.KeyPending, Until: time.Now().Add(time.Hour)}
	if _, err := w.bus.Keys().Put(t.Context(), keyHash(hello, "", "newer"), &newer, 0); err != nil {
		t.Fatal(err)
	}
	now := w.pendingWith(Request{Ref: hello, Key: "now", Body: []byte("a")}, true)
	late := w.pendingWith(Request{Ref: hello, Key: "late", NotBefore: time.Now().Add(time.Hour)}, true)
	old := w.pendingWith(Request{Ref: hello, Key: "old", Deadline: time.Now().Add(time.Millisecond)}, true)
	time.Sleep(2 * time.Millisecond)
	w.stop()
	w = start(t, dir, run, Config{})
	for key, want := range map[string]functions.KeyState{"now": functions.KeyAccepted, "late": functions.KeyAccepted, "old": functions.KeyPending} {
		w.until(key+" is settled", func() bool { return w.keyState(key) == want })
	}
	if st := w.ends(now.ID); st.State != functions.StateSucceeded || c.of(now.ID) != 1 {
		t.Errorf("%+v after %d attempts", st, c.of(now.ID))
	}
	if st, err := w.q.Lookup(t.Context(), late.ID, 0); err != nil || st.State != functions.StateScheduled {
		t.Errorf("%+v, %v", st, err)
	}
	if _, err := w.q.Lookup(t.Context(), old.ID, 0); !fault.Is(err, fault.CodeInvocationNotFound) {
		t.Errorf("one whose time is over is stored: %v", err)
	}
	if got := w.submit(Request{Key: "now", Body: []byte("a")}); got.ID != now.ID || !got.Replayed {
		t.Errorf("got %+v, want %s", got, now.ID)
	}
	rec, _, err := w.bus.Keys().Get(t.Context(), keyHash(hello, "", "now"))
	if err != nil || rec.Invocation != nil {
		t.Errorf("the record keeps the invocation: %+v, %v", rec, err)
	}
	if d := w.q.Depth(hello); d != (Depth{Scheduled: 1}) {
		t.Errorf("depth %+v", d)
	}
}

func (w *world) keyState(key string) functions.KeyState {
	rec, _, err := w.bus.Keys().Get(w.t.Context(), keyHash(hello, "", key))
	if err != nil {
		return functions.KeyState(err.Error())
	}
	return rec.State
}

func TestAPendingKeyIsStoredByItsRepetition(t *testing.T) {
	t.Parallel()
	var c calls
	run := newDataPath(t, 4, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { c.add(r) }))
	run.deploy(hello, nil)
	dir := t.TempDir()
	w := start(t, dir, run, Config{InlineBody: 1 << 10})
	missing := w.pending(Request{Ref: hello, Key: "missing", Body: []byte("a")})
	large := make([]byte, 4<<10)
	_, _ = rand.Read(large)
	spilled := w.pending(Request{Ref: hello, Key: "large", Body: large})
	stored := w.submit(Request{Key: "stored", Body: []byte("a")})
	w.ends(stored.ID)
	w.empty()
	// As if the note had been lost.
	w.until("the key is accepted", func() bool { return w.keyState("stored") == functions.KeyAccepted })
	rec, revision, err := w.bus.Keys().Get(t.Context(), keyHash(hello, "", "stored"))
	if err != nil {
		t.Fatal(err)
	}
	rec.State = functions.KeyPending
	if _, err := w.bus.Keys().Put(t.Context(), keyHash(hello, "", "stored"), &rec, revision); err != nil {
		t.Fatal(err)
	}
	w.stop()

	w = start(t, dir, run, Config{InlineBody: 1 << 10})
	w.until("the start settles a key whose invocation is stored", func() bool { return w.keyState("stored") == functions.KeyAccepted })
	if got := w.submit(Request{Key: "missing", Body: []byte("a")}); got.ID != missing.ID || !got.Replayed {
		t.Errorf("got %+v, want %s", got, missing.ID)
	}
	if got := w.submit(Request{Key: "large", BodyReader: strings.NewReader(string(large))}); got.ID != spilled.ID {
		t.Errorf("got %+v, want %s", got, spilled.ID)
	}
	if got := w.submit(Request{Key: "stored", Body: []byte("a")}); got.ID != stored.ID {
		t.Errorf("got %+v, want %s", got, stored.ID)
	}
	for _, id := range []functions.InvocationID{missing.ID, spilled.ID} {
		if st := w.ends(id); st.State != functions.StateSucceeded {
			t.Errorf("%+v", st)
		}
	}
	w.empty()
	for _, id := range []functions.InvocationID{missing.ID, spilled.ID, stored.ID} {
		if c.of(id) != 1 {
			t.Errorf("%s: %d attempts", id, c.of(id))
		}
	}
	if d := w.q.Depth(hello); d != (Depth{}) {
		t.Errorf("depth %+v", d)
	}
}

func TestTheRecordOfAKeyOutlivesItsInvocation(t *testing.T) {
	t.Parallel()
	run := newDataPath(t, 0, http.HandlerFunc(echo))
	run.deploy(hello, func(c *functions.Config) { c.Queue.MaxAge = functions.Duration(72 * time.Hour) })
	w := start(t, t.TempDir(), run, Config{})
	now := time.Now()
	w.submit(Request{Key: "k"})
	w.submit(Request{Key: "late", NotBefore: now.Add(48 * time.Hour)})
	for key, least := range map[string]time.Duration{"k": 72 * time.Hour, "late": 120 * time.Hour} {
		m, err := w.bus.JetStream().Stream(t.Context(), bus.StreamKeys)
		if err != nil {
			t.Fatal(err)
		}
		msg, err := m.GetLastMsgForSubject(t.Context(), bus.KeySubject(keyHash(hello, "", key)))
		if err != nil {
			t.Fatal(err)
		}
		ttl, err := time.ParseDuration(msg.Header.Get("Nats-TTL") + "s")
		if err != nil || ttl < least || ttl > least+2*keySpare {
			t.Errorf("%s is kept for %s (%v), want %s", key, ttl, err, least)
		}
	}
}

func readAll(t testing.TB, r io.ReadCloser) string {
	t.Helper()
	defer func() { _ = r.Close() }()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
