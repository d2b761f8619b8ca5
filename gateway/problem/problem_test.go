package problem_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tatami-faas/tatami/gateway/problem"
	"github.com/tatami-faas/tatami/internal/fault"
)

func write(r *http.Request, err error) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	w.Header().Set("Content-Encoding", "gzip")
	problem.Write(w, r, err)
	return w
}

func TestWrite(t *testing.T) {
	t.Parallel()
	err := fault.Wrap(fault.CodeFunctionCrashed, errors.New("killed"), "hello crashed").WithOp("invoke").WithField("f").
		WithHint("tatami logs hello").WithRetryAfter(1500 * time.Millisecond).WithDetails("line")
	w := write(httptest.NewRequest("GET", "/", nil), err)
	var got problem.Problem
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	want := problem.Problem{
		Type: "urn:tatami:fault:function-crashed", Title: "Bad Gateway", Status: 502, Detail: "hello crashed: killed", Code: "function-crashed",
		Kind: "function-failed", Op: "invoke", Field: "f", Hint: "tatami logs hello", Details: []string{"line"}, RetryAfter: 2,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	h := w.Header()
	if w.Code != 502 || h.Get("Tatami-Error") != "function-crashed" || h.Get("Retry-After") != "2" ||
		h.Get("Content-Type") != "application/problem+json" || h.Get("Content-Encoding") != "" {
		t.Errorf("status %d, headers %v", w.Code, h)
	}
}

// Every code answers with its own status and name; the kinds that ask to come back later say when.
func TestEveryCode(t *testing.T) {
	t.Parallel()
	for _, c := range fault.Codes() {
		w := write(httptest.NewRequest("GET", "/", nil), fault.New(c, "x"))
		if w.Code != c.Status() || w.Header().Get("Tatami-Error") != string(c) {
			t.Errorf("%s: status %d, header %q", c, w.Code, w.Header().Get("Tatami-Error"))
		}
		if k := c.Kind(); (w.Header().Get("Retry-After") != "") != (k == fault.Quota || k == fault.Overloaded) {
			t.Errorf("%s: Retry-After %q", c, w.Header().Get("Retry-After"))
		}
	}
}

func TestInternalSaysNothing(t *testing.T) {
	t.Parallel()
	for _, err := range []error{errors.New("secret"), fault.Wrap(fault.CodeInternal, errors.New("secret"), "the store failed")} {
		w := write(httptest.NewRequest("GET", "/", nil), err)
		if w.Code != 500 || strings.Contains(w.Body.String(), "secret") {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
}

func TestHeadHasNoBody(t *testing.T) {
	t.Parallel()
	if w := write(httptest.NewRequest("HEAD", "/", nil), fault.New(fault.CodeNotFound, "x")); w.Body.Len() != 0 || w.Code != 404 {
		t.Errorf("%d %q", w.Code, w.Body)
	}
}

func TestGone(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	r := httptest.NewRequest("GET", "/", nil).WithContext(ctx)
	cancel(nil)
	if w := write(r, fault.New(fault.CodeNotFound, "x")); w.Code != problem.StatusClientGone || w.Body.Len() != 0 {
		t.Errorf("client gone: %d %q", w.Code, w.Body)
	}
	ctx, cancel = context.WithCancelCause(t.Context())
	r = r.WithContext(ctx)
	cancel(fault.New(fault.CodeDraining, "the server stops"))
	if w := write(r, fault.New(fault.CodeDraining, "x")); w.Code != 503 {
		t.Errorf("server stops: %d", w.Code)
	}
}
