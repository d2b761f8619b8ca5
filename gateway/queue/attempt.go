package queue

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// Headers that an attempt carries.
const (
	headerInvocation = "Tatami-Invocation-Id"
	headerAttempt    = "Tatami-Attempt"
	headerError      = "Tatami-Error"
)

// errExpired is the reason of an invocation whose time ran out before an attempt could begin.
var errExpired = errors.New("it did not start within its maximum age")

// verdict is what follows from an attempt.
type verdict uint8

const (
	// succeeded and died are final; retry is another attempt later, if there may be one.
	succeeded verdict = iota
	died
	retry
	// expired is final without an attempt; cancelled with or without one.
	expired
	cancelled
	// later is no attempt: the platform could not make it, and it is tried again.
	later
	// cut is an attempt that the end of this process broke off.
	cut
)

// outcome is an attempt's end.
type outcome struct {
	verdict verdict
	attempt functions.Attempt
	// sent says that the function may have seen the request.
	sent bool
	// answered says that the function answered; status, header, body and bodyRef are its answer then.
	answered   bool
	status     int
	header     map[string][]string
	body       []byte
	bodyRef    *functions.BodyRef
	reason     string
	retryAfter time.Duration
	err        error
}

// attempt makes an attempt from a message with a lease, or with the error that stands for the lease, and writes what follows from it.
func (q *Queue) attempt(l *lane, h *held, lease Lease, leaseErr error) {
	release := func() {
		if lease != nil {
			lease.Release()
			lease = nil
		}
	}
	defer release()
	inv, ok := q.toDo(h)
	if !ok {
		return
	}
	if ref := q.runsOn(inv); ref != l.ref && leaseErr == nil {
		// It is pinned to another revision than the live one, or two functions of one hash share a lane.
		release()
		lease, leaseErr = q.run.Lease(q.lanesCtx, ref)
	}
	o := outcome{verdict: cancelled}
	if q.begin(h) {
		o = q.perform(h, inv, lease, leaseErr)
	}
	release()
	q.conclude(h, inv, o)
}

// toDo reads a message. False: it cannot be read, or its invocation has ended or has a further attempt; it is done with then.
func (q *Queue) toDo(h *held) (*functions.Invocation, bool) {
	giveUp := func() (*functions.Invocation, bool) {
		h.lane.endTurn(h.order, h.id)
		q.drop(h)
		return nil, false
	}
	if !q.reread(h) {
		return giveUp()
	}
	inv, err := decodeInvocation(h.msg.Data)
	if err != nil {
		// Not acknowledged: it is delivered again when the acknowledgement is overdue, to a version that can read it or to this one.
		q.log.Error("a queued invocation cannot be read, it stays in the queue", "inv", string(h.id), "err", err)
		return giveUp()
	}
	inv.Attempt = max(inv.Attempt, h.attempt)
	return &inv, !q.alreadyDone(h, &inv)
}

// conclude writes what follows from an attempt whose slot is given back.
func (q *Queue) conclude(h *held, inv *functions.Invocation, o outcome) {
	if stopped, hungUp := q.unstoppable(h); stopped && o.verdict != cut && (hungUp || o.verdict != succeeded) {
		// An answer that succeeded all the same is a result; one that did not is not waited for again.
		o.verdict, o.answered = cancelled, o.answered && !hungUp
	}
	switch o.verdict {
	case later:
		q.paused(h)
		h.lane.putBack(h, o.err)
		return
	case cut:
	default:
		if q.finish(h, inv, &o) {
			return
		}
	}
	q.concluded(h)
}

// concluded follows the end of what an attempt led to.
func (q *Queue) concluded(h *held) {
	h.tally.run(-1)
	q.drop(h)
	q.notify(h.id)
}

// alreadyDone acknowledges a message whose invocation has ended or has a further attempt, and says so.
func (q *Queue) alreadyDone(h *held, inv *functions.Invocation) bool {
	if h.fresh {
		// A terminal record follows an attempt, or the expiry of a message in hand, of this process: there was neither. Should one come
		// from elsewhere all the same, it wins when the result is stored.
		return false
	}
	var rec functions.Result
	var found, newer bool
	ok := q.insist(h, "reading the result", func(ctx context.Context) error {
		var err error
		rec, _, err = q.bus.Results().Get(ctx, bus.ResultKey(h.id))
		if found = err == nil; found || fault.Is(err, fault.CodeInvocationNotFound) {
			err = nil
		}
		if err == nil && !found && h.again {
			newer, err = q.superseded(ctx, h)
		}
		return err
	})
	switch {
	case !ok:
	case found:
		q.settle(h, inv, &rec, false)
	case newer:
		q.ack(h)
	default:
		return false
	}
	q.drop(h)
	q.notify(h.id)
	return true
}

// superseded reports whether a later attempt of the invocation is in the stream: this message was about to be acknowledged when the
// process died.
func (q *Queue) superseded(ctx context.Context, h *held) (bool, error) {
	scheduled, _ := bus.ScheduledSubject(h.id)
	waiting, _ := bus.InvocationSubject(h.id)
	for _, subject := range []string{scheduled, waiting} {
		seq, err := q.lastOf(ctx, subject)
		if err != nil {
			return false, err
		}
		if seq > h.seq {
			return true, nil
		}
	}
	return false, nil
}

// perform makes the attempt.
func (q *Queue) perform(h *held, inv *functions.Invocation, lease Lease, leaseErr error) outcome {
	started := time.Now().UTC()
	o := outcome{attempt: functions.Attempt{Number: inv.Attempt, Started: started}}
	if errors.Is(leaseErr, errExpired) {
		o.verdict, o.reason = expired, errExpired.Error()
		return o
	}
	if q.unfit(inv, &o) {
		return o
	}
	if leaseErr != nil {
		return q.failed(o, leaseErr)
	}
	rev := lease.Revision()
	if rev.Config.Queue.Batch.On() {
		return q.performBatch([]member{{h, inv}}, lease)[0]
	}
	o.attempt.Revision, o.attempt.Instance, o.attempt.Cold = cmp.Or(inv.Revision, rev.ID), lease.Instance(), lease.Cold()
	cfg := rev.Config.WithDefaults()
	late := &overtime{inv, cfg.Timeout.Std()}
	ctx, cancel, direct := q.contextOf(h, inv, lease, late)
	defer cancel()
	stopper := q.stopperOf(h, lease, cfg.Concurrency, cancel)
	defer stopper.settle()
	if !q.stoppable(h, stopper.stop) {
		cancel()
	}
	r, err := q.request(ctx, inv)
	if err != nil {
		return q.failed(o, err)
	}
	o.sent = true
	resp, err := roundTrip(lease, direct, r, inv) //nolint:bodyclose // keep closes it
	if err == nil {
		err = q.keep(ctx, h, inv, resp, &o)
	}
	if err != nil {
		if cause := context.Cause(ctx); cause != nil && q.alive.Err() == nil {
			err = cause
			if errors.Is(cause, context.Canceled) {
				err = errCancelled
			}
		} else if direct != nil && fault.CodeOf(err) == fault.CodeFunctionTimeout {
			err = late.fault()
		}
		return q.failed(o, err)
	}
	o.attempt.Ended = time.Now().UTC()
	o.attempt.Status, o.answered = resp.StatusCode, true
	o.verdict, o.retryAfter = judge(resp, o.attempt.Ended)
	if o.verdict != succeeded {
		o.reason = answerer(inv) + " answered " + strconv.Itoa(resp.StatusCode) + " " + http.StatusText(resp.StatusCode)
	}
	return o
}

// contextOf is the context of an attempt, and the lease where it is one that needs none with a deadline.
func (q *Queue) contextOf(h *held, inv *functions.Invocation, lease Lease, late *overtime) (context.Context, context.CancelFunc, Direct) {
	if direct, ok := lease.(Direct); ok && inv.BodyRef == nil {
		s := q.spanOf(h)
		return s, s.end, direct
	}
	ctx, cancel := context.WithTimeoutCause(q.alive, late.timeout, late)
	return ctx, cancel, nil
}

// roundTrip sends the request of an attempt, which says which one it is.
func roundTrip(lease Lease, direct Direct, r *http.Request, inv *functions.Invocation) (*http.Response, error) {
	if direct != nil {
		return direct.RoundTripAs(r, inv.ID, inv.Attempt)
	}
	r.Header = named(inv.Header, inv)
	return lease.RoundTrip(r)
}

// named is a header that says which attempt a request is.
func named(h map[string][]string, inv *functions.Invocation) http.Header {
	out := make(http.Header, len(h)+2)
	maps.Copy(out, h)
	out[headerInvocation] = []string{string(inv.ID)}
	out[headerAttempt] = []string{strconv.Itoa(inv.Attempt)}
	return out
}

// overtime ends an attempt that took longer than it may. It is a fault that is put into words only if it comes to that.
type overtime struct {
	inv     *functions.Invocation
	timeout time.Duration
}

// Error is the fault's.
func (t *overtime) Error() string { return t.fault().Error() }

// As makes it the fault for errors.As.
func (t *overtime) As(target any) bool {
	f, ok := target.(**fault.Error)
	if ok {
		*f = t.fault()
	}
	return ok
}

func (t *overtime) fault() *fault.Error {
	return fault.New(fault.CodeFunctionTimeout, "%s did not finish its answer within %s, its timeout", t.inv.Ref(), t.timeout)
}

// unfit reports whether an invocation is not to be attempted any more, with its outcome.
func (q *Queue) unfit(inv *functions.Invocation, o *outcome) bool {
	switch {
	case o.attempt.Started.After(inv.Deadline):
		o.verdict, o.reason = expired, errExpired.Error()
	case inv.Hops > functions.MaxHops:
		*o = q.failed(*o, errTooDeep)
	default:
		return false
	}
	return true
}

// answerer is who answers an attempt.
func answerer(inv *functions.Invocation) string {
	if _, _, delivery := inv.Ref().Delivers(); delivery {
		return "the destination"
	}
	return "the function"
}

// request is the HTTP request of an attempt, whose header is the invocation's own.
func (q *Queue) request(ctx context.Context, inv *functions.Invocation) (*http.Request, error) {
	u := &url.URL{Scheme: "http", Host: inv.Function + "." + inv.Namespace, RawQuery: inv.Query}
	var err error
	if u.Path, err = url.PathUnescape(inv.Path); err != nil {
		return nil, fault.Wrap(fault.CodeInvalidRequest, err, "the path %.80q", inv.Path)
	}
	if u.EscapedPath() != inv.Path {
		u.RawPath = inv.Path
	}
	r := (&http.Request{
		Method: inv.Method, URL: u, Header: inv.Header,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}).WithContext(ctx)
	switch {
	case inv.BodyRef != nil:
		body, size, err := q.bus.Bodies().Open(ctx, inv.BodyRef.Object)
		if err != nil {
			return nil, err
		}
		r.Body, r.ContentLength = body, size
	case len(inv.Body) > 0:
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(inv.Body)), int64(len(inv.Body))
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(inv.Body)), nil }
	default:
		r.Body = http.NoBody
	}
	return r, nil
}

// keep reads the answer, into the object store where it is large.
func (q *Queue) keep(ctx context.Context, h *held, inv *functions.Invocation, resp *http.Response, o *outcome) error {
	defer func() { _ = resp.Body.Close() }()
	o.status, o.header = resp.StatusCode, endOnly(resp.Header)
	delete(o.header, headerError)
	head, err := readUpTo(resp.Body, resp.ContentLength, q.cfg.InlineBody+1)
	if err != nil {
		return brokenAnswer(inv, err)
	}
	if int64(len(head)) <= q.cfg.InlineBody {
		o.body = head
		return nil
	}
	src := &answerReader{r: resp.Body}
	// Named by attempt and delivery: a late attempt never replaces what the first one's record names.
	name := bus.BodyObject(h.id, "response-"+strconv.Itoa(inv.Attempt)+"-"+strconv.FormatInt(time.Now().UnixNano(), 36))
	o.bodyRef, err = q.spill(ctx, name, io.MultiReader(bytes.NewReader(head), src), q.cfg.MaxResult)
	switch {
	case errors.Is(err, errTooLarge):
		return &finalError{fault.New(fault.CodeFunctionBadResponse, "the answer of %s is larger than %d bytes, which is what can be kept",
			inv.Ref(), q.cfg.MaxResult)}
	case src.err != nil:
		return brokenAnswer(inv, src.err)
	}
	return err
}

// readUpTo reads all there is, but at most so many bytes; expected is how many there are likely to be, -1 where that is not known.
func readUpTo(r io.Reader, expected, most int64) ([]byte, error) {
	if expected < 0 || expected >= most {
		return io.ReadAll(io.LimitReader(r, most))
	}
	// One byte more than there is: the end is to be read, too.
	got := make([]byte, 0, expected+1)
	for len(got) < cap(got) {
		n, err := r.Read(got[len(got):cap(got)])
		got = got[:len(got)+n]
		if errors.Is(err, io.EOF) {
			return got, nil
		}
		if err != nil {
			return got, err
		}
	}
	rest, err := io.ReadAll(io.LimitReader(r, most-int64(len(got))))
	return append(got, rest...), err
}

// answerReader remembers the error of the function's body, to tell it from the store's.
type answerReader struct {
	r   io.Reader
	err error
}

func (a *answerReader) Read(p []byte) (int, error) {
	n, err := a.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		a.err = err
	}
	return n, err
}

func brokenAnswer(inv *functions.Invocation, err error) error {
	if fault.From(err) != nil {
		return err
	}
	return fault.Wrap(fault.CodeFunctionBadResponse, err, "%s broke off its answer", inv.Ref())
}

// finalError is a failure that another attempt would only repeat.
type finalError struct{ fault *fault.Error }

// Error is the fault's.
func (f *finalError) Error() string { return f.fault.Error() }

// Unwrap returns the fault.
func (f *finalError) Unwrap() error { return f.fault }

// failed is the outcome of an attempt without a whole answer.
func (q *Queue) failed(o outcome, err error) outcome {
	o.attempt.Ended = time.Now().UTC()
	o.err = err
	code := fault.CodeOf(err)
	var final *finalError
	switch {
	case q.alive.Err() != nil || q.lanesCtx.Err() != nil && errors.Is(err, context.Canceled):
		o.verdict = cut
		return o
	case platformFault(err) && (!o.sent || !interrupted(code)):
		o.verdict = later
		return o
	case code == fault.CodeFunctionNotFound:
		o.verdict, o.reason = died, "the function was deleted while the invocation waited"
	case code == fault.CodeNotFound:
		o.verdict, o.reason = died, "the body of the invocation is gone: "+err.Error()
	case errors.As(err, &final) || code == fault.CodeInvalidRequest:
		o.verdict, o.reason = died, err.Error()
	default:
		o.verdict, o.reason = retry, err.Error()
		if f := fault.From(err); f != nil {
			o.retryAfter = f.RetryAfter
		}
	}
	// An answer that broke off is none.
	o.status, o.header, o.body, o.bodyRef = 0, nil, nil, nil
	o.attempt.Error, o.attempt.Message = string(code), err.Error()
	return o
}

// platformFault reports whether the platform could not make the attempt, for reasons that pass and are not the function's.
func platformFault(err error) bool {
	switch fault.CodeOf(err) {
	case fault.CodeNoCapacity, fault.CodeWaitingListFull, fault.CodeUnavailable, fault.CodeDraining, fault.CodeStorageFull,
		fault.CodeQuotaExceeded, fault.CodeRateLimited, fault.CodeQueueFull, fault.CodeWaitTimeout:
		return true
	}
	return false
}

// interrupted reports whether the platform ended what it had begun: that is an attempt, whose number no other one has.
func interrupted(code fault.Code) bool {
	return code == fault.CodeDraining || code == fault.CodeUnavailable
}

// judge reads the function's status.
func judge(resp *http.Response, now time.Time) (verdict, time.Duration) {
	switch s := resp.StatusCode; {
	case s < 400:
		return succeeded, 0
	case s == 408 || s == 409 || s == 425 || s == 429 || s >= 500:
		return retry, retryAfter(resp.Header.Get("Retry-After"), now)
	default:
		return died, 0
	}
}

// retryAfter reads a Retry-After header; 0 where it says nothing.
func retryAfter(s string, now time.Time) time.Duration {
	if n, err := strconv.ParseUint(s, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if t, err := http.ParseTime(s); err == nil {
		return max(t.Sub(now), 0)
	}
	return 0
}
