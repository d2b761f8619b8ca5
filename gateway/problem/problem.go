package problem

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/tatami-faas/tatami/internal/fault"
)

// HeaderError carries the fault's code on every answer that the platform made itself.
const HeaderError = "Tatami-Error"

// ContentType is the media type of the answers.
const ContentType = "application/problem+json"

// StatusClientGone is recorded, never seen: whoever asked is no longer there.
const StatusClientGone = 499

// Problem is the body of an error answer: RFC 9457, with the fault's own members.
type Problem struct {
	// Type is a URN made of the code.
	Type string `json:"type"`
	// Title is the status in words.
	Title  string `json:"title"`
	Status int    `json:"status"`
	// Detail says what happened, to what.
	Detail string     `json:"detail"`
	Code   fault.Code `json:"code"`
	Kind   string     `json:"kind"`
	// Op is the operation that failed.
	Op string `json:"op,omitempty"`
	// Field names the part of the input at fault.
	Field string `json:"field,omitempty"`
	// Hint is the next step.
	Hint string `json:"hint,omitempty"`
	// Details are further lines, such as a function's last log lines.
	Details []string `json:"details,omitempty"`
	// RetryAfter is in seconds, as in the header of that name.
	RetryAfter int `json:"retryAfter,omitempty"`
}

// Of describes err. The text of an error without a code stays inside: it may tell what is nobody's business.
func Of(err error) Problem {
	e := fault.From(err)
	if e == nil {
		e = fault.New(fault.CodeInternal, "an internal error happened; the server's log has it")
	}
	p := Problem{
		Type: "urn:tatami:fault:" + string(e.Code), Status: e.Code.Status(), Code: e.Code, Kind: e.Code.Kind().String(),
		Op: e.Op, Field: e.Field, Hint: e.Hint, Details: e.Details, Detail: e.Message,
	}
	if e.Err != nil && e.Code != fault.CodeInternal {
		p.Detail += ": " + e.Err.Error()
	}
	p.Title = http.StatusText(p.Status)
	wait := e.RetryAfter
	if kind := e.Code.Kind(); wait == 0 && (kind == fault.Quota || kind == fault.Overloaded) {
		wait = time.Second
	}
	if wait > 0 {
		p.RetryAfter = max(1, int(math.Ceil(wait.Seconds())))
	}
	return p
}

// Write answers r with err. Headers that were set before stay, those that describe a body go. It writes no body for a client that is
// gone, and none to HEAD.
func Write(w http.ResponseWriter, r *http.Request, err error) { WriteStatus(w, r, err, 0) }

// Respond is Write for who knows that the client is there: a request's context also ends when reading its body was cut short.
func Respond(w http.ResponseWriter, r *http.Request, err error) { respond(w, r, Of(err)) }

// WriteStatus is Write with another status than the code's, for what the table has no row for, such as 405; 0 is the code's own.
func WriteStatus(w http.ResponseWriter, r *http.Request, err error, status int) {
	if Gone(r) {
		w.WriteHeader(StatusClientGone)
		return
	}
	p := Of(err)
	if status != 0 {
		p.Status, p.Title = status, http.StatusText(status)
	}
	respond(w, r, p)
}

// unreadPatience is how long the rest of a body may take that nobody reads any more.
const unreadPatience = time.Second

// Unread bounds the wait for a body that was not read: the server looks for the next request behind it, and without a bound it would
// wait for as long as the client likes. It is for handlers that answer, or return, without having read the body.
func Unread(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 1 && r.ContentLength != 0 {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(unreadPatience))
	}
}

// writePatience is how long a client may take to read a problem.
const writePatience = 20 * time.Second

func respond(w http.ResponseWriter, r *http.Request, p Problem) {
	Unread(w, r)
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writePatience))
	if isGRPC(r) {
		respondGRPC(w, p)
		return
	}
	body, failed := json.Marshal(p)
	if failed != nil {
		body = []byte(`{"status":500}`)
	}
	body = append(body, '\n')
	h := w.Header()
	for _, k := range []string{"Content-Encoding", "Etag", "Last-Modified", "Cache-Control", "Trailer"} {
		h.Del(k)
	}
	h.Set("Content-Type", ContentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set(HeaderError, string(p.Code))
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(p.RetryAfter))
	}
	w.WriteHeader(p.Status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body)
	}
}

// Gone reports whether the client of r has left. A server that ends its requests cancels with a cause of its own, which is not that.
func Gone(r *http.Request) bool {
	ctx := r.Context()
	return ctx.Err() != nil && errors.Is(context.Cause(ctx), context.Canceled)
}
