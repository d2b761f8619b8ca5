package invoke

import (
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

// HeaderAttempt tells a function the number of the attempt of a queued invocation.
const HeaderAttempt = "Tatami-Attempt"

// RoundTrip sends r to the leased instance and returns its answer, whose body must be read to the end or closed before the lease is
// released. The function's timeout holds from here to the end of the body; r's context ends the exchange too. Unlike in ServeFunction
// the headers are sent as they are, except those that belong to a connection: what the client must not say was taken out before. Every
// failure is a fault, also that of the body's Read.
func (l *Lease) RoundTrip(r *http.Request) (*http.Response, error) { return l.RoundTripAs(r, "", 0) }

// RoundTripAs is RoundTrip for an attempt of a queued invocation, of which it tells the function, whatever r's header says of that. r's context may
// tell of its end by itself, as http1's clients do.
func (l *Lease) RoundTripAs(r *http.Request, id functions.InvocationID, attempt int) (*http.Response, error) {
	ctx, start := r.Context(), time.Now()
	cfg := &l.rev.Config
	t := &trip{
		x:    exchange{inv: l.inv, fn: l.fn, limit: cfg.Timeout, idle: cfg.IdleTimeout},
		body: answerBody{ctx: ctx, r: r, cold: l.cold},
	}
	x, o := &t.x, &t.o
	t.body.x = x
	l.under.Store(x)
	if err := l.outgoing(r, o); err != nil {
		closeBody(r)
		return nil, err
	}
	o.id, o.attempt = string(id), attempt
	if o.body != nil {
		x.body = r.Body
	}
	x.watch(ctx, start, start.Add(cfg.Timeout.Std()))
	resp, err := x.roundTrip(ctx, start, l, o)
	if err != nil {
		var unsent *errNothingSent
		isUnsent := errors.As(err, &unsent) && x.uncut()
		x.stopBody()
		if !isUnsent {
			err = x.fault(ctx, err)
		} else if d, gone := x.departed(ctx); gone {
			err = l.fn.crashed(d)
		} else {
			err = l.fn.badResponse(unsent.err, "takes no connections on port %d", cfg.Port)
		}
		x.finish(false)
		closeBody(r)
		if errors.Is(err, errGone) {
			err = fault.Wrap(fault.CodeUnavailable, context.Cause(ctx), "the attempt on %s was ended", l.fn.ref)
		}
		t.body.record(err)
		return nil, err
	}
	t.body.src, t.body.status = resp.Body, resp.StatusCode
	resp.Body = &t.body
	return resp, nil
}

// trip is what a round trip needs, made at once.
type trip struct {
	x    exchange
	o    outgoing
	body answerBody
}

func closeBody(r *http.Request) {
	if r.Body != nil {
		_ = r.Body.Close()
	}
}

// outgoing makes o of r.
func (l *Lease) outgoing(r *http.Request, o *outgoing) error {
	for k, vv := range r.Header {
		if !validName(k) {
			return fault.New(fault.CodeInvalidRequest, "%.40q is no name of a header", k)
		}
		for _, v := range vv {
			if !validValue(v) {
				return fault.New(fault.CodeInvalidRequest, "the header %s has a value that ends its line", k)
			}
		}
	}
	target := r.URL.EscapedPath()
	if target == "" || target[0] != '/' {
		target = "/" + target
	}
	if r.URL.RawQuery != "" || r.URL.ForceQuery {
		target += "?" + r.URL.RawQuery
	}
	if !validTarget(target) || !validName(r.Method) || !validTarget(r.Host) {
		return fault.New(fault.CodeInvalidRequest, "the request's method, host or path holds what cannot be sent")
	}
	*o = outgoing{
		req: r, target: target, host: r.Host, header: r.Header, named: namedByConnection(r.Header), trusted: true, maxBody: math.MaxInt64,
	}
	if o.host == "" {
		o.host = hostOf(l.fn.ref)
	}
	if r.Body != nil && r.Body != http.NoBody && r.ContentLength != 0 {
		o.body, o.length, o.chunked = r.Body, r.ContentLength, r.ContentLength < 0 || len(r.Trailer) > 0
	}
	return nil
}

// validTarget reports whether s can stand in the first lines of a request.
func validTarget(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] == 0x7f {
			return false
		}
	}
	return true
}

// answerBody is the body of an answer; its end is the exchange's.
type answerBody struct {
	x   *exchange
	ctx context.Context
	r   *http.Request
	src io.ReadCloser
	// status is the answer's, cold says that the instance was started for it.
	status int
	cold   bool
	err    error
}

// record counts the exchange.
func (b *answerBody) record(err error) {
	now := time.Now()
	b.x.fn.stats.record(now, now.Sub(b.x.start), outcome{status: b.status, err: err, cold: b.cold})
}

// Read reads the body. Its errors are faults, except io.EOF.
func (b *answerBody) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.src.Read(p)
	switch {
	case err == nil:
	case errors.Is(err, io.EOF):
		b.done(true, io.EOF, nil)
	default:
		err = b.x.brokenOff(b.ctx, err)
		if errors.Is(err, errGone) {
			err = fault.Wrap(fault.CodeUnavailable, context.Cause(b.ctx), "the attempt on %s was ended", b.x.fn.ref)
		}
		b.done(false, err, err)
	}
	return n, b.err
}

func (b *answerBody) done(complete bool, err, outcome error) {
	b.err = err
	b.x.finish(complete)
	closeBody(b.r)
	b.record(outcome)
}

// Close ends the exchange; an answer that was not read to its end takes its connection with it.
func (b *answerBody) Close() error {
	if b.err == nil {
		b.done(b.src == http.NoBody, http.ErrBodyReadAfterClose, nil)
	}
	return nil
}
