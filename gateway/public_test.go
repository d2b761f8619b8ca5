package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/problem"
	"github.com/tatami-faas/tatami/gateway/queue"
	"github.com/tatami-faas/tatami/internal/fault"
)

// front is both the functions and the queue behind the public routes: what reaches it is what a test looks at.
type front struct {
	ready    chan struct{}
	accepted []queue.Request
	bodies   []string
	status   queue.Status
	wait     time.Duration
	// answer and outcome are what a call under a key came to.
	answer  strings.Builder
	outcome queue.Outcome
}

func (f *front) ServeFunction(w http.ResponseWriter, r *http.Request, ref functions.Ref, path string) {
	fmt.Fprintf(w, "%s %s %s?%s", r.Method, ref, path, r.URL.RawQuery)
}

func (f *front) AllowQueued(_ context.Context, ref functions.Ref) (*functions.Revision, error) {
	if ref.Name == "nobody" {
		return nil, fault.New(fault.CodeFunctionNotFound, "no")
	}
	return &functions.Revision{}, nil
}

func (f *front) Ready() <-chan struct{} { return f.ready }

func (f *front) ServeInvocation(w http.ResponseWriter, r *http.Request, ref functions.Ref, path string, id functions.InvocationID) {
	if path == "/crash" {
		problem.Respond(w, r, fault.New(fault.CodeFunctionCrashed, "no"))
		return
	}
	if path == "/full" {
		problem.Respond(w, r, fault.New(fault.CodeWaitingListFull, "no"))
		return
	}
	w.Header().Set("X-Fn", string(id))
	w.WriteHeader(http.StatusCreated)
	fmt.Fprint(w, "as ")
	_, _ = io.Copy(w, r.Body)
}

func (f *front) Submit(_ context.Context, r queue.Request) (queue.Receipt, error) {
	body, err := io.ReadAll(r.BodyReader)
	if err != nil {
		return queue.Receipt{}, err
	}
	f.accepted, f.bodies = append(f.accepted, r), append(f.bodies, string(body))
	return queue.Receipt{ID: "inv_x", Replayed: r.Key == "again"}, nil
}

func (f *front) Once(ctx context.Context, r queue.Request, run func(context.Context, queue.Call) (int, http.Header, queue.Outcome)) (queue.Answer, error) {
	body, err := io.ReadAll(r.BodyReader)
	if err != nil {
		return queue.Answer{}, err
	}
	f.accepted = append(f.accepted, r)
	a := queue.Answer{ID: "inv_y", Replayed: r.Key == "again"}
	a.Status, a.Header, f.outcome = run(ctx, queue.Call{ID: a.ID, Body: io.NopCloser(strings.NewReader(string(body))), Size: int64(len(body)), Answer: &f.answer})
	return a, nil
}

func (f *front) OpenAnswer(context.Context, *queue.Answer) (io.ReadCloser, int64, error) {
	return io.NopCloser(strings.NewReader(f.answer.String())), int64(f.answer.Len()), nil
}

func (f *front) Lookup(_ context.Context, id functions.InvocationID, wait time.Duration) (queue.Status, error) {
	if id != f.status.ID {
		return queue.Status{}, fault.New(fault.CodeInvocationNotFound, "no")
	}
	f.wait = wait
	return f.status, nil
}

func (f *front) Follow(_ context.Context, id functions.InvocationID, fn func(queue.Status) error) error {
	if id != f.status.ID {
		return fault.New(fault.CodeInvocationNotFound, "no")
	}
	for _, state := range []functions.InvocationState{functions.StateAccepted, functions.StateRunning, functions.StateSucceeded} {
		st := f.status
		if st.State = state; !state.Terminal() {
			st.Result = nil
		}
		if err := fn(st); err != nil {
			return err
		}
	}
	return nil
}

func (f *front) Cancel(_ context.Context, id functions.InvocationID) (queue.Status, error) {
	st, err := f.Lookup(context.Background(), id, 0)
	switch {
	case err != nil:
	case st.State == functions.StateSucceeded:
		err = fault.New(fault.CodeConflict, "it has ended")
	case st.State == functions.StateAccepted:
		f.status.State = functions.StateCancelled
	}
	return f.status, err
}

func (f *front) OpenBody(_ context.Context, rec *functions.Result) (io.ReadCloser, int64, error) {
	return io.NopCloser(strings.NewReader(string(rec.Body))), int64(len(rec.Body)), nil
}

func setup(t *testing.T) (*front, func(method, target, body string, set ...string) *httptest.ResponseRecorder) {
	t.Helper()
	f := &front{ready: make(chan struct{})}
	h := Public(f, f, Config{Domain: "fn.example", MaxBody: 100})
	return f, func(method, target, body string, set ...string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, target, strings.NewReader(body))
		if body == "" {
			r.Body = http.NoBody
		}
		for i := 0; i+1 < len(set); i += 2 {
			if set[i] == "Host" {
				r.Host = set[i+1]
			}
			r.Header.Add(set[i], set[i+1])
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
}

func TestRoutes(t *testing.T) {
	t.Parallel()
	_, do := setup(t)
	for _, c := range []struct{ method, target, host, want string }{
		{"GET", "/fn/hello", "", "GET hello /?"},
		{"BREW", "/fn/hello.prod/a%2Fb?x=1", "", "BREW hello.prod /a%2Fb?x=1"},
		{"GET", "http://proxy.example/fn/hello/y", "", "GET hello /y?"},
		{"GET", "/", "hello.default.fn.example", "GET hello /?"},
		{"GET", "/fn/other/x", "hello.prod.FN.example:8080", "GET hello.prod /fn/other/x?"},
		{"POST", "/async/other", "hello.prod.fn.example", "POST hello.prod /async/other?"},
		{"OPTIONS", "/fn/hello", "", "OPTIONS hello /?"},
	} {
		set := []string{}
		if c.host != "" {
			set = []string{"Host", c.host}
		}
		if w := do(c.method, c.target, "", set...); w.Body.String() != c.want {
			t.Errorf("%s %s at %q: %q, want %q", c.method, c.target, c.host, w.Body, c.want)
		}
	}
	for _, c := range []struct {
		method, target string
		status         int
		code           string
	}{
		{"GET", "/", 404, "not-found"}, {"GET", "/fn", 404, "not-found"}, {"GET", "/fn/", 404, "not-found"}, {"GET", "/v1/functions", 404, "not-found"},
		{"GET", "/ui", 404, "not-found"}, {"GET", "/metrics", 404, "not-found"}, {"POST", "/async/", 404, "not-found"},
		{"GET", "/async/hello", 405, "invalid-request"}, {"POST", "/invocations/inv_x", 405, "invalid-request"}, {"BREW", "/healthz", 405, "invalid-request"},
		{"POST", "/async/nobody", 404, "function-not-found"},
	} {
		w := do(c.method, c.target, "")
		if w.Code != c.status || w.Header().Get("Tatami-Error") != c.code || w.Code == 405 && w.Header().Get("Allow") == "" {
			t.Errorf("%s %s: %d %v", c.method, c.target, w.Code, w.Header())
		}
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	f, do := setup(t)
	if w := do("GET", "/healthz", ""); w.Code != 200 {
		t.Errorf("health %d", w.Code)
	}
	if w := do("GET", "/readyz", ""); w.Code != 503 {
		t.Errorf("ready before it is: %d", w.Code)
	}
	close(f.ready)
	if w := do("HEAD", "/readyz", ""); w.Code != 200 || w.Body.Len() > 0 {
		t.Errorf("ready: %d %q", w.Code, w.Body)
	}
}

func TestAsync(t *testing.T) {
	t.Parallel()
	f, do := setup(t)
	type answer struct{ ID, Location string }
	for i, c := range []struct {
		method, target, host, prefer, location string
		want                                   queue.Request
	}{
		{"POST", "/async/hello", "", "", "/invocations/inv_x", queue.Request{Path: "/"}},
		{"POST", "/async/hello/a%2Fb?q=1", "", "", "/invocations/inv_x", queue.Request{Path: "/a%2Fb", Query: "q=1"}},
		{"PUT", "/fn/hello/x", "", "respond-async, wait=5", "/invocations/inv_x", queue.Request{Path: "/x"}},
		{"GET", "/x", "hello.default.fn.example:8080", "respond-async", "//fn.example:8080/invocations/inv_x", queue.Request{Path: "/x"}},
	} {
		set := []string{"X-Own", "1", "Connection", "X-Named", "X-Named", "gone", "Tatami-Attempt", "forged", "Keep-Alive", "x"}
		if c.prefer != "" {
			set = append(set, "Prefer", c.prefer)
		}
		if c.host != "" {
			set = append(set, "Host", c.host)
		}
		w := do(c.method, c.target, "body", set...)
		var a answer
		if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil {
			t.Fatal(err)
		}
		h := w.Header()
		if w.Code != 202 || a != (answer{"inv_x", c.location}) || h.Get("Location") != c.location || h.Get("Tatami-Invocation-Id") != "inv_x" {
			t.Errorf("%s %s: %d %v %v", c.method, c.target, w.Code, h, a)
		}
		if (h.Get("Preference-Applied") == "respond-async") != (c.prefer != "") {
			t.Errorf("%s %s: Preference-Applied %q", c.method, c.target, h.Get("Preference-Applied"))
		}
		got := f.accepted[i]
		if got.Method != c.method || got.Path != c.want.Path || got.Query != c.want.Query || got.Trigger != "http" ||
			got.Ref != (functions.Ref{Namespace: "default", Name: "hello"}) || f.bodies[i] != "body" {
			t.Errorf("%s %s is stored as %+v", c.method, c.target, got)
		}
		hdr := got.Header
		if hdr.Get("X-Own") != "1" || hdr.Get("X-Forwarded-For") != "192.0.2.1" || !strings.HasPrefix(hdr.Get("Forwarded"), "for=192.0.2.1;") || hdr.Get("Traceparent") == "" {
			t.Errorf("header %v", hdr)
		}
		for _, k := range []string{"Connection", "X-Named", "Keep-Alive", "Tatami-Attempt"} {
			if len(hdr[k]) > 0 {
				t.Errorf("%s is stored", k)
			}
		}
	}
	if w := do("POST", "/async/hello", strings.Repeat("x", 101)); w.Code != 413 || w.Header().Get("Tatami-Error") != "body-too-large" {
		t.Errorf("too large: %d", w.Code)
	}
}

func TestInvocation(t *testing.T) {
	t.Parallel()
	f, do := setup(t)
	at := time.Date(2026, 11, 21, 6, 0, 0, 0, time.UTC)
	f.status = queue.Status{ID: "inv_x", Ref: functions.Ref{Namespace: "default", Name: "hello"}, State: functions.StateRunning, Attempt: 1, Accepted: at}
	get := func(target string) (*httptest.ResponseRecorder, map[string]any) {
		w := do("GET", target, "")
		var v map[string]any
		if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil && w.Header().Get("Content-Type") == "application/json" {
			t.Fatal(err)
		}
		return w, v
	}
	w, v := get("/invocations/inv_x?wait=1m30s")
	if w.Code != 200 || v["state"] != "running" || v["function"] != "hello" || f.wait != 90*time.Second || w.Header().Get("Retry-After") == "" || len(v["attempts"].([]any)) != 0 {
		t.Errorf("%d %v, waited %s", w.Code, v, f.wait)
	}
	if w, _ := get("/invocations/inv_x?wait=5"); w.Code != 200 || f.wait != 5*time.Second {
		t.Errorf("waited %s", f.wait)
	}
	for _, bad := range []string{"x", "-1s", "-1", "1e3"} {
		if w, _ := get("/invocations/inv_x?wait=" + bad); w.Code != 400 || w.Header().Get("Tatami-Error") != "invalid-request" {
			t.Errorf("wait=%s: %d", bad, w.Code)
		}
	}
	if w, _ := get("/invocations/inv_y"); w.Code != 404 || w.Header().Get("Tatami-Error") != "invocation-not-found" {
		t.Errorf("%d", w.Code)
	}
	if w, _ := get("/invocations/inv_x/body"); w.Code != 409 || w.Header().Get("Retry-After") == "" {
		t.Errorf("body of a running one: %d", w.Code)
	}
	f.status.State = functions.StateSucceeded
	rec := &functions.Result{State: functions.StateSucceeded, Status: 201, Header: map[string][]string{"Content-Type": {"text/x"}, "X-Own": {"1"}}, Body: []byte("hällo"), Finished: at}
	f.status.Result = rec
	if w, v = get("/invocations/inv_x"); v["status"] != 201.0 || v["body"] != "hällo" || v["encoding"] != "utf-8" || v["headers"].(map[string]any)["X-Own"] == nil || w.Header().Get("Retry-After") != "" {
		t.Errorf("%v", v)
	}
	w, _ = get("/invocations/inv_x/body")
	if w.Code != 200 || w.Body.String() != "hällo" || w.Header().Get("Content-Type") != "text/x" || w.Header().Get("Content-Length") != "6" || w.Header().Get("X-Own") != "" {
		t.Errorf("%d %q %v", w.Code, w.Body, w.Header())
	}
	rec.Body = []byte{0xff, 0}
	if _, v = get("/invocations/inv_x"); v["body"] != "/wA=" || v["encoding"] != "base64" {
		t.Errorf("%v", v)
	}
	rec.Body, rec.BodyRef = nil, &functions.BodyRef{Object: "o", Size: 1 << 30}
	if _, v = get("/invocations/inv_x"); v["body"] != nil || v["encoding"] != nil || v["bodySize"] != float64(1<<30) || v["bodyLocation"] != "/invocations/inv_x/body" {
		t.Errorf("%v", v)
	}
	f.status.State, rec.Status, rec.Reason, rec.BodyRef = functions.StateDead, 0, "gave up", nil
	if _, v = get("/invocations/inv_x"); v["state"] != "dead" || v["reason"] != "gave up" || v["bodyLocation"] != nil {
		t.Errorf("%v", v)
	}
	if w, _ = get("/invocations/inv_x/body"); w.Code != 404 {
		t.Errorf("body of one without an answer: %d", w.Code)
	}
	// A body that breaks off is not passed as whole.
	rec.Status, rec.Body = 200, []byte("x")
	h := Public(f, shortBody{f}, Config{})
	defer func() {
		if err, _ := recover().(error); !errors.Is(err, http.ErrAbortHandler) {
			t.Error("a part of a body looks like the whole")
		}
	}()
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/invocations/inv_x/body", nil))
}

type shortBody struct{ *front }

func (shortBody) OpenBody(context.Context, *functions.Result) (io.ReadCloser, int64, error) {
	return io.NopCloser(strings.NewReader("x")), 2, nil
}

func TestInvocationsAreCancelled(t *testing.T) {
	t.Parallel()
	f, do := setup(t)
	for _, c := range []struct {
		id     string
		state  functions.InvocationState
		status int
		after  string
	}{
		{"inv_x", functions.StateAccepted, http.StatusOK, `"state":"cancelled"`},
		{"inv_x", functions.StateCancelled, http.StatusOK, `"state":"cancelled"`},
		{"inv_x", functions.StateRunning, http.StatusAccepted, `"state":"running"`},
		{"inv_x", functions.StateSucceeded, http.StatusConflict, `"conflict"`},
		{"inv_y", functions.StateAccepted, http.StatusNotFound, `"invocation-not-found"`},
	} {
		f.status = queue.Status{ID: "inv_x", State: c.state}
		if w := do("DELETE", "/invocations/"+c.id, ""); w.Code != c.status || !strings.Contains(w.Body.String(), c.after) {
			t.Errorf("%s, %s: %d %s", c.id, c.state, w.Code, w.Body)
		}
	}
	if w := do("POST", "/invocations/inv_x", ""); w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "GET, HEAD, DELETE" {
		t.Errorf("%d, allowed %q", w.Code, w.Header().Get("Allow"))
	}
}

func TestADelayReachesTheQueue(t *testing.T) {
	t.Parallel()
	f, do := setup(t)
	if w := do("POST", "/async/hello", "", headerAt, "2031-05-01T12:00:00Z"); w.Code != http.StatusAccepted {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if got := f.accepted[0]; !got.NotBefore.Equal(time.Date(2031, 5, 1, 12, 0, 0, 0, time.UTC)) || len(got.Header[headerAt]) > 0 {
		t.Errorf("%+v", got)
	}
	if w := do("POST", "/async/hello", "", headerDelay, "never"); w.Code != http.StatusBadRequest || len(f.accepted) != 1 {
		t.Errorf("%d %s, %d accepted", w.Code, w.Body, len(f.accepted))
	}
}
