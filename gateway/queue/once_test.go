package queue

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

// once runs a synchronous invocation that answers what it was sent.
func (w *world) once(r Request, run func(Call) Outcome) (Answer, error) {
	w.t.Helper()
	r.Ref = hello
	if r.Key == "" {
		r.Key = "k"
	}
	return w.q.Once(w.t.Context(), r, func(_ context.Context, c Call) (int, http.Header, Outcome) {
		o := run(c)
		if o != OutcomeUnknown {
			if _, err := io.Copy(c.Answer, c.Body); err != nil {
				w.t.Error(err)
			}
		}
		return 201, http.Header{"X-A": {"b"}, "Server-Timing": {"run"}}, o
	})
}

func answered(Call) Outcome { return OutcomeAnswered }

func (w *world) sameAnswer(a Answer, id functions.InvocationID, body string) {
	w.t.Helper()
	r, _, err := w.q.OpenAnswer(w.t.Context(), &a)
	if err != nil {
		w.t.Fatal(err)
	}
	if got := readAll(w.t, r); got != body || a.ID != id || a.Status != 201 || a.Header.Get("X-A") != "b" {
		w.t.Errorf("got %+v with %d bytes, want %d", a, len(got), len(body))
	}
}

func TestACallIsMadeOnceUnderItsKey(t *testing.T) {
	t.Parallel()
	run := newDataPath(t, 1, http.HandlerFunc(echo))
	run.deploy(hello, nil)
	dir := t.TempDir()
	w := start(t, dir, run, Config{InlineBody: 1 << 10})
	large := strings.Repeat("z", 5<<10)
	bodies := map[string]string{"small": "hi", "empty": "", "large": large}
	ids := map[string]functions.InvocationID{}
	for key, body := range bodies {
		a, err := w.once(Request{Key: key, BodyReader: strings.NewReader(body)}, answered)
		if err != nil || a.Replayed {
			t.Fatalf("%s: %+v %v", key, a, err)
		}
		ids[key] = a.ID
		w.sameAnswer(a, a.ID, body)
	}
	again := func() {
		t.Helper()
		for key, body := range bodies {
			a, err := w.once(Request{Key: key, BodyReader: strings.NewReader(body)}, func(Call) Outcome {
				t.Errorf("%s: the function runs again", key)
				return OutcomeAnswered
			})
			if err != nil || !a.Replayed || a.Header.Get("Server-Timing") != "" {
				t.Fatalf("%s: %+v %v", key, a, err)
			}
			w.sameAnswer(a, ids[key], body)
		}
	}
	again()
	if err := w.q.sweep(t.Context(), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	w.stop()
	w = start(t, dir, run, Config{InlineBody: 1 << 10})
	again()
	_, err := w.once(Request{Key: "small", Body: []byte("ho")}, answered)
	wantCode(t, err, fault.CodeKeyMismatch)
	_, err = w.q.Submit(t.Context(), Request{Ref: hello, Key: "small", Body: []byte("hi")})
	wantCode(t, err, fault.CodeKeyMismatch)
}

func TestARepetitionMeetsTheFirst(t *testing.T) {
	t.Parallel()
	run := newDataPath(t, 1, http.HandlerFunc(echo))
	run.deploy(hello, nil)
	w := start(t, t.TempDir(), run, Config{})
	running, answer, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	ctx, leave := context.WithCancel(t.Context())
	var first Answer
	go func() {
		var err error
		first, err = w.q.Once(ctx, Request{Ref: hello, Key: "k"}, func(ctx context.Context, c Call) (int, http.Header, Outcome) {
			close(running)
			<-answer
			if ctx.Err() != nil {
				t.Error("the call ends with its caller")
			}
			_, _ = io.WriteString(c.Answer, "ok")
			return 201, http.Header{"X-A": {"b"}}, OutcomeAnswered
		})
		done <- err
	}()
	receive(t, running, "the call begins")
	_, err := w.once(Request{}, answered)
	wantCode(t, err, fault.CodeConflict)
	if fault.From(err).RetryAfter <= 0 {
		t.Error("the refusal does not say when to come again")
	}
	leave()
	close(answer)
	if err := receive(t, done, "the call ends"); err != nil {
		t.Fatal(err)
	}
	a, err := w.once(Request{}, answered)
	if err != nil || !a.Replayed {
		t.Fatalf("%+v %v", a, err)
	}
	w.sameAnswer(a, first.ID, "ok")
}

func TestWhatDidNotReachTheFunctionIsCalledAnew(t *testing.T) {
	t.Parallel()
	run := newDataPath(t, 1, http.HandlerFunc(echo))
	run.deploy(hello, nil)
	w := start(t, t.TempDir(), run, Config{})
	for range 2 {
		if a, err := w.once(Request{}, func(Call) Outcome { return OutcomeUntouched }); err != nil || a.Replayed {
			t.Fatalf("%+v %v", a, err)
		}
	}
	if a, err := w.once(Request{}, answered); err != nil || a.Replayed {
		t.Fatalf("%+v %v", a, err)
	}
	if a, err := w.once(Request{}, answered); err != nil || !a.Replayed {
		t.Fatalf("%+v %v", a, err)
	}
}

func TestAnUnknownOutcomeIsSaidUnlessTheFunctionMayRunAgain(t *testing.T) {
	t.Parallel()
	run := newDataPath(t, 1, http.HandlerFunc(echo))
	run.deploy(hello, nil)
	w := start(t, t.TempDir(), run, Config{MaxResult: 2 << 10, InlineBody: 1 << 10})
	var id functions.InvocationID
	if _, err := w.once(Request{}, func(c Call) Outcome { id = c.ID; return OutcomeUnknown }); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, err := w.once(Request{}, answered)
		wantCode(t, err, fault.CodeOutcomeUnknown)
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("a panic was swallowed")
			}
		}()
		_, _ = w.once(Request{Key: "panic"}, func(Call) Outcome { panic(http.ErrAbortHandler) })
	}()
	_, err := w.once(Request{Key: "panic"}, answered)
	wantCode(t, err, fault.CodeOutcomeUnknown)
	_, err = w.once(Request{Key: "too large", BodyReader: strings.NewReader(strings.Repeat("x", 3<<10))}, answered)
	wantCode(t, err, fault.CodeOutcomeUnknown)

	run.deploy(hello, func(c *functions.Config) { c.RetrySafe = true })
	// A run that does not reach the function does not make the first one forgotten.
	if a, err := w.once(Request{}, func(Call) Outcome { return OutcomeUntouched }); err != nil || a.ID != id {
		t.Fatalf("%+v %v", a, err)
	}
	a, err := w.once(Request{}, answered)
	if err != nil || a.Replayed {
		t.Fatalf("%+v %v", a, err)
	}
	w.sameAnswer(a, id, "")
}

// A process that was killed while the function ran leaves a record that says so.
func TestACallThatAKillBrokeOffIsUnknown(t *testing.T) {
	t.Parallel()
	run := newDataPath(t, 1, http.HandlerFunc(echo))
	run.deploy(hello, nil)
	dir := t.TempDir()
	w := start(t, dir, run, Config{})
	r := Request{Ref: hello, Key: "k"}
	rec := w.pending(r)
	_, revision, err := w.bus.Keys().Get(t.Context(), keyHash(hello, "", "k"))
	if err != nil {
		t.Fatal(err)
	}
	_ = r.complete()
	rec.State, rec.Request = functions.KeyRunning, requestHash("called", r.Method, r.Path, r.Query, bodyHash(&functions.Invocation{}))
	if _, err := w.bus.Keys().Put(t.Context(), keyHash(hello, "", "k"), &rec, revision); err != nil {
		t.Fatal(err)
	}
	_, err = w.once(Request{}, answered)
	wantCode(t, err, fault.CodeOutcomeUnknown)
	w.stop()
	w = start(t, dir, run, Config{})
	w.until("the start says that it is unknown", func() bool { return w.keyState("k") == functions.KeyUnknown })
	_, err = w.once(Request{}, answered)
	wantCode(t, err, fault.CodeOutcomeUnknown)
}

func TestTheEndOfTheQueueWaitsForCallsAndCutsThem(t *testing.T) {
	t.Parallel()
	run := newDataPath(t, 1, http.HandlerFunc(echo))
	run.deploy(hello, nil)
	w := start(t, t.TempDir(), run, Config{Drain: 50 * time.Millisecond})
	running, done := make(chan struct{}), make(chan error, 1)
	go func() {
		_, err := w.q.Once(context.Background(), Request{Ref: hello, Key: "k"}, func(ctx context.Context, _ Call) (int, http.Header, Outcome) {
			close(running)
			<-ctx.Done()
			if !fault.Is(context.Cause(ctx), fault.CodeDraining) {
				t.Errorf("the call ends for %v", context.Cause(ctx))
			}
			return 503, nil, OutcomeUnknown
		})
		done <- err
	}()
	receive(t, running, "the call begins")
	w.stop()
	if err := receive(t, done, "the call ends"); err != nil {
		t.Error(err)
	}
	_, err := w.q.Once(context.Background(), Request{Ref: hello, Key: "l"}, func(context.Context, Call) (int, http.Header, Outcome) {
		t.Error("a call begins behind the end")
		return 0, nil, OutcomeUnknown
	})
	if !fault.Is(err, fault.CodeDraining) && !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
