package queue

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

func TestWhatIsWrongWithARequestIsSaid(t *testing.T) {
	t.Parallel()
	run := newDataPath(t, 1, http.HandlerFunc(echo))
	run.deploy(hello, nil)
	w := start(t, t.TempDir(), run, Config{MaxBody: 1 << 20})
	for name, c := range map[string]struct {
		r    Request
		code fault.Code
	}{
		"no such function": {Request{Ref: functions.Ref{Namespace: "default", Name: "gone"}}, fault.CodeFunctionNotFound},
		"no name":          {Request{Ref: functions.Ref{Namespace: "default", Name: "No Name"}}, fault.CodeInvalidRequest},
		"method":           {Request{Ref: hello, Method: "GE T"}, fault.CodeInvalidRequest},
		"connect":          {Request{Ref: hello, Method: "CONNECT"}, fault.CodeInvalidRequest},
		"path":             {Request{Ref: hello, Path: "a"}, fault.CodeInvalidRequest},
		"escape":           {Request{Ref: hello, Path: "/%zz"}, fault.CodeInvalidRequest},
		"space":            {Request{Ref: hello, Path: "/a b"}, fault.CodeInvalidRequest},
		"query":            {Request{Ref: hello, Query: "a\nb"}, fault.CodeInvalidRequest},
		"field":            {Request{Ref: hello, Header: http.Header{"A B": {"x"}}}, fault.CodeInvalidRequest},
		"value":            {Request{Ref: hello, Header: http.Header{"A": {"x\r\ny: z"}}}, fault.CodeInvalidRequest},
		"large header":     {Request{Ref: hello, Header: http.Header{"A": {strings.Repeat("x", maxHeader)}}}, fault.CodeHeaderTooLarge},
		"large body":       {Request{Ref: hello, Body: make([]byte, 1<<20+1)}, fault.CodeBodyTooLarge},
		"large stream":     {Request{Ref: hello, BodyReader: io.LimitReader(rand.Reader, 1<<20+1)}, fault.CodeBodyTooLarge},
		"broken stream":    {Request{Ref: hello, BodyReader: brokenReader{}}, fault.CodeInvalidRequest},
		"bounded stream":   {Request{Ref: hello, BodyReader: http.MaxBytesReader(nil, io.NopCloser(strings.NewReader("12345")), 4)}, fault.CodeBodyTooLarge},
	} {
		_, err := w.q.Accept(t.Context(), c.r)
		if fault.CodeOf(err) != c.code {
			t.Errorf("%s: got %v with code %q, want %q", name, err, fault.CodeOf(err), c.code)
		}
	}
	if d := w.q.Depth(hello); d != (Depth{}) {
		t.Errorf("what was refused counts: %+v", d)
	}
	w.empty()
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errors.New("the client left") }

func TestAFullQueueRefusesAndTakesAgain(t *testing.T) {
	t.Parallel()
	run := newDataPath(t, 0, http.HandlerFunc(echo))
	run.deploy(hello, func(c *functions.Config) { c.Queue.MaxPending = 3 })
	other := functions.Ref{Namespace: "ns", Name: "other"}
	run.deploy(other, nil)
	w := start(t, t.TempDir(), run, Config{})
	var ids []functions.InvocationID
	for range 3 {
		ids = append(ids, w.accept(Request{}))
	}
	_, err := w.q.Accept(t.Context(), Request{Ref: hello})
	wantCode(t, err, fault.CodeQueueFull)
	if f := fault.From(err); f.RetryAfter <= 0 || f.Hint == "" {
		t.Errorf("the refusal says not when to come again: %+v", f)
	}
	ids = append(ids, w.accept(Request{Ref: other}))
	if d := w.q.Depth(hello); d.Pending != 3 || d.Oldest.IsZero() {
		t.Errorf("depth %+v", d)
	}
	run.set(func() { run.free = 2 })
	for _, id := range ids {
		w.ends(id)
	}
	w.empty()
	w.accept(Request{})
}

func TestTheCapHoldsAfterARestart(t *testing.T) {
	t.Parallel()
	run := newDataPath(t, 0, http.HandlerFunc(echo))
	run.deploy(hello, func(c *functions.Config) { c.Queue.MaxPending = 3 })
	dir := t.TempDir()
	w := start(t, dir, run, Config{})
	ids := []functions.InvocationID{w.accept(Request{}), w.accept(Request{}), w.accept(Request{})}
	w.stop()
	w = start(t, dir, run, Config{})
	_, err := w.q.Accept(t.Context(), Request{Ref: hello})
	wantCode(t, err, fault.CodeQueueFull)
	run.set(func() { run.free = 1 })
	for _, id := range ids {
		if st := w.ends(id); st.State != functions.StateSucceeded || len(st.Attempts) != 1 {
			t.Errorf("%+v", st)
		}
	}
	w.accept(Request{})
}

func TestLargeBodiesGoThroughTheObjectStore(t *testing.T) {
	t.Parallel()
	run := newDataPath(t, 2, http.HandlerFunc(echo))
	run.deploy(hello, nil)
	w := start(t, t.TempDir(), run, Config{InlineBody: 1000, MaxResult: 1 << 20})
	large := make([]byte, 300_000)
	_, _ = rand.Read(large)
	for name, r := range map[string]Request{"bytes": {Body: large}, "reader": {BodyReader: bytes.NewReader(large)}} {
		st := w.ends(w.accept(r))
		if st.State != functions.StateSucceeded || st.Result.BodyRef == nil || st.Result.Body != nil {
			t.Fatalf("%s: %+v", name, st)
		}
		if w.body(st.Result) != string(large) {
			t.Errorf("%s: the body changed on its way", name)
		}
		if has, err := w.bus.Bodies().Has(t.Context(), bus.BodyObject(st.ID, "request")); err != nil || has {
			t.Errorf("%s: the request's body is still there: %v, %v", name, has, err)
		}
	}
	// What cannot be kept fails for good: the next attempt would be no smaller.
	st := w.ends(w.accept(Request{Body: make([]byte, 1<<20+1)}))
	if st.State != functions.StateDead || len(st.Attempts) != 1 || st.Attempts[0].Error != string(fault.CodeFunctionBadResponse) {
		t.Errorf("too large an answer: %+v", st)
	}
	letter, err := w.q.ShowDead(t.Context(), st.ID)
	if err != nil || letter.Invocation.BodyRef == nil {
		t.Fatalf("dead letter %+v, error %v", letter, err)
	}
	body, size, err := w.q.OpenRequest(t.Context(), &letter.Invocation)
	if err != nil || size != 1<<20+1 {
		t.Fatalf("the dead letter's body: %d bytes, error %v", size, err)
	}
	_ = body.Close()
}

func TestBodiesWithoutAnOwnerAreSwept(t *testing.T) {
	t.Parallel()
	run := newDataPath(t, 1, http.HandlerFunc(echo))
	run.deploy(hello, nil)
	run.deploy(functions.Ref{Namespace: "default", Name: "idle"}, nil)
	w := start(t, t.TempDir(), run, Config{InlineBody: 10})
	kept := w.ends(w.accept(Request{Body: make([]byte, 100)}))
	run.set(func() { run.free = 0 })
	waiting := w.accept(Request{Body: make([]byte, 100)})
	orphan := bus.BodyObject(functions.NewInvocationID(hello), "request")
	lost := bus.BodyObject(kept.ID, "response-1-other")
	for _, name := range []string{orphan, lost} {
		if _, err := w.bus.Bodies().Put(t.Context(), name, strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
	}
	has := func(name string) bool {
		t.Helper()
		ok, err := w.bus.Bodies().Has(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	if err := w.q.sweep(t.Context(), time.Now().Add(-time.Hour)); err != nil || !has(orphan) {
		t.Fatalf("a young body was swept; error %v", err)
	}
	if err := w.q.sweep(t.Context(), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if has(orphan) || has(lost) {
		t.Error("bodies that nothing names are still there")
	}
	if !has(kept.Result.BodyRef.Object) || !has(bus.BodyObject(waiting, "request")) {
		t.Error("a body in use was swept")
	}
	run.set(func() { run.free = 1 })
	w.ends(waiting)
}

func TestAFullStoreRefusesAndTheRestGoesOn(t *testing.T) {
	t.Parallel()
	run := newDataPath(t, 0, http.HandlerFunc(echo))
	run.deploy(hello, nil)
	w := startOn(t, bus.Config{DataDir: t.TempDir(), MaxStore: 16 << 20}, run, Config{})
	var ids []functions.InvocationID
	var err error
	for err == nil && len(ids) < 1000 {
		var id functions.InvocationID
		if id, err = w.q.Accept(t.Context(), Request{Ref: hello, Body: make([]byte, 200_000)}); err == nil {
			ids = append(ids, id)
		}
		time.Sleep(2 * time.Millisecond)
	}
	wantCode(t, err, fault.CodeStorageFull)
	if len(ids) < 10 {
		t.Fatalf("only %d were accepted", len(ids))
	}
	run.trip = noop
	run.set(func() { run.free = 4 })
	for _, id := range ids {
		if st := w.ends(id); st.State != functions.StateSucceeded {
			t.Fatalf("%+v", st)
		}
	}
	// Room is asked for anew after a moment.
	for deadline := time.Now().Add(10 * time.Second); ; {
		if _, err = w.q.Accept(t.Context(), Request{Ref: hello}); err == nil {
			return
		}
		wantCode(t, err, fault.CodeStorageFull)
		if time.Now().After(deadline) {
			t.Fatalf("acceptance did not come back: %v", err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestNothingIsTakenAfterTheEnd(t *testing.T) {
	t.Parallel()
	run := newDataPath(t, 1, http.HandlerFunc(echo))
	run.deploy(hello, nil)
	w := start(t, t.TempDir(), run, Config{})
	w.stop()
	_, err := w.q.Accept(context.Background(), Request{Ref: hello})
	wantCode(t, err, fault.CodeDraining)
}

// Fast is accepted while the disk cannot be synced at all; the default is not.
func TestFastDoesNotWaitForTheDisk(t *testing.T) {
	t.Parallel()
	run := newDataPath(t, 1, http.HandlerFunc(echo))
	run.deploy(hello, func(c *functions.Config) { c.Queue.Durability = functions.DurabilityFast })
	w := start(t, t.TempDir(), run, Config{})
	w.ends(w.accept(Request{}))
	// The server makes a new block when the last message of one is acknowledged.
	w.empty()
	run.set(func() { run.free = 0 })
	blocks := filepath.Join(w.dir, "jetstream", bus.AccountTatami, "streams", bus.StreamInvocations, "msgs")
	if err := os.Rename(blocks, blocks+"-gone"); err != nil {
		t.Fatal(err)
	}
	id, err := w.q.Accept(t.Context(), Request{Ref: hello})
	if rerr := os.Rename(blocks+"-gone", blocks); rerr != nil {
		t.Fatal(rerr)
	}
	if err != nil || !stillQueued(t, w.bus, id) {
		t.Errorf("%s: %v", id, err)
	}
}
