package gateway

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"strconv"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/invoke"
	"github.com/tatami-faas/tatami/gateway/problem"
	"github.com/tatami-faas/tatami/gateway/queue"
	"github.com/tatami-faas/tatami/internal/fault"
)

const (
	// headerKey makes the repetition of a request harmless.
	headerKey = "Idempotency-Key"
	// headerOrder has queued invocations run one after the other.
	headerOrder = "Tatami-Ordering-Key"
	// headerReplayed says that an answer was given before.
	headerReplayed = "Idempotency-Replayed"
)

// keyOf reads a header that holds one key: "" where there is none.
func keyOf(h http.Header, name string) (string, error) {
	keys := h[name]
	switch len(keys) {
	case 0:
		return "", nil
	case 1:
		return keys[0], functions.CheckKey(name, keys[0])
	}
	return "", fault.New(fault.CodeInvalidRequest, "%s: %d keys are given, a request has one", name, len(keys)).WithField(name)
}

// once answers a synchronous request with a key: the function is run for the first such request only. Request and answer are held back
// until they are whole.
func (p *public) once(w http.ResponseWriter, r *http.Request, ref functions.Ref, path string) {
	a, err := p.callOnce(w, r, ref, path)
	if err != nil {
		problem.Respond(w, r, err)
		return
	}
	body, size, err := p.queue.OpenAnswer(r.Context(), &a)
	if err != nil {
		problem.Respond(w, r, err)
		return
	}
	defer func() { _ = body.Close() }()
	h := w.Header()
	maps.Copy(h, a.Header)
	if len(h["Content-Type"]) == 0 {
		h["Content-Type"] = nil
	}
	h.Set(invoke.HeaderInvocationID, string(a.ID))
	if a.Replayed {
		h.Set(headerReplayed, "true")
	}
	if r.Method != http.MethodHead && a.Status != http.StatusNotModified && a.Status != http.StatusNoContent {
		h.Set("Content-Length", strconv.FormatInt(size, 10))
	}
	w.WriteHeader(a.Status)
	if r.Method == http.MethodHead || size == 0 {
		return
	}
	if n, err := io.Copy(newPatient(w, p.cfg.WriteTimeout), body); err != nil || n != size {
		// The client must not take a part for the whole.
		panic(http.ErrAbortHandler)
	}
}

func (p *public) callOnce(w http.ResponseWriter, r *http.Request, ref functions.Ref, path string) (queue.Answer, error) {
	key, err := keyOf(r.Header, headerKey)
	if err != nil {
		return queue.Answer{}, err
	}
	if invoke.UpgradeOf(r.Header) != "" {
		return queue.Answer{}, fault.New(fault.CodeInvalidRequest, "%s: a connection that changes its protocol cannot be repeated", headerKey).
			WithField(headerKey).WithHint("leave the header out")
	}
	if err := p.tooLong(r); err != nil {
		return queue.Answer{}, err
	}
	body := newClientBody(w, r)
	a, err := p.queue.Once(r.Context(), queue.Request{
		Ref: ref, Method: r.Method, Path: path, Query: r.URL.RawQuery, BodyReader: body, Key: key, Trigger: "http",
	}, func(ctx context.Context, c queue.Call) (int, http.Header, queue.Outcome) {
		again := r.WithContext(ctx)
		again.Body, again.ContentLength, again.TransferEncoding, again.Trailer = c.Body, c.Size, nil, nil
		again.Header = r.Header.Clone()
		again.Header.Del("Expect")
		rec := &recorder{h: http.Header{}, body: c.Answer}
		p.fns.ServeInvocation(rec, again, ref, path, c.ID)
		return rec.end()
	})
	if err != nil && body.err != nil && !errors.Is(body.err, io.EOF) {
		return a, body.fault()
	}
	return a, err
}

// recorder takes an answer that is to be kept.
type recorder struct {
	h      http.Header
	status int
	// head is the header when the answer's body began.
	head http.Header
	body io.Writer
}

// Header is the answer's header until its body begins.
func (c *recorder) Header() http.Header { return c.h }

// WriteHeader begins the answer; what announces one is left out.
func (c *recorder) WriteHeader(status int) {
	if c.status == 0 && status >= 200 {
		c.status, c.head = status, c.h.Clone()
	}
}

// Write takes a part of the body.
func (c *recorder) Write(p []byte) (int, error) {
	c.WriteHeader(http.StatusOK)
	return c.body.Write(p)
}

// end tells what the answer came to. The platform's own answers say by their code whether the function may have begun.
func (c *recorder) end() (int, http.Header, queue.Outcome) {
	c.WriteHeader(http.StatusOK)
	c.head.Del("Trailer")
	code := fault.Code(c.head.Get(problem.HeaderError))
	switch {
	case c.status == problem.StatusClientGone:
		return c.status, c.head, queue.OutcomeUnknown
	case code == "":
		return c.status, c.head, queue.OutcomeAnswered
	case beforeFunction(code):
		return c.status, c.head, queue.OutcomeUntouched
	}
	return c.status, c.head, queue.OutcomeUnknown
}

// beforeFunction reports whether a fault of the data path comes before the function is reached.
func beforeFunction(code fault.Code) bool {
	switch code {
	case fault.CodeStartTimeout, fault.CodeWaitTimeout, fault.CodeFunctionNotReady, fault.CodeUnavailable:
		return true
	}
	switch code.Kind() {
	case fault.Invalid, fault.NotFound, fault.Quota, fault.Overloaded, fault.Unauthenticated, fault.Denied, fault.StorageFull:
		return true
	}
	return false
}
