package queue

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

// headerReplay tells a function that it runs an invocation again whose result is kept already, and on which revision.
const headerReplay = "Tatami-Replay"

// maxReplayed is the largest body of an answer that a replay gives back, in bytes; of a larger one it gives the beginning.
const maxReplayed = 1 << 20

// Replayed is what an invocation gave when it ended, and when it was replayed.
type Replayed struct {
	ID       functions.InvocationID
	Ref      functions.Ref
	Revision functions.RevisionID
	// Before is what is kept of it; Now the answer of the replay.
	Before, Now Output
}

// Output is an answer.
type Output struct {
	State    functions.InvocationState
	Revision functions.RevisionID
	// Status is 0 and Reason says why, where there was no answer.
	Status int
	Reason string
	Header http.Header
	// Body is the whole body, or its beginning where Cut is set.
	Body []byte
	Cut  bool
	Took time.Duration
}

// Replay runs a stored invocation once more, against a revision of its function or, where rev is empty, against the live one, and returns what
// it gives now beside what it gave. It changes nothing of what is stored, and the function gets the same Tatami-Invocation-Id: an effect that is
// conditional on that is not had again. The request must be kept: it is that of one that is dead or waits, or of a function with
// queue.keepRequests.
func (q *Queue) Replay(ctx context.Context, id functions.InvocationID, rev functions.RevisionID) (Replayed, error) {
	if err := q.waitReady(ctx); err != nil {
		return Replayed{}, err
	}
	inv, rec, err := q.kept(ctx, id)
	if err != nil {
		return Replayed{}, err
	}
	if _, _, delivery := inv.Ref().Delivers(); delivery {
		return Replayed{}, fault.New(fault.CodeConflict, "%s goes to a destination: it can be redriven, not replayed", id).WithHint("tatami queue redrive %s", id)
	}
	on := inv.Ref()
	if rev != "" {
		if on, err = q.pin(ctx, on, rev); err != nil {
			return Replayed{}, err
		}
	}
	out := Replayed{ID: id, Ref: inv.Ref(), Before: Output{State: functions.StateAccepted}}
	if rec != nil {
		if out.Before, err = q.outputOf(ctx, rec); err != nil {
			return Replayed{}, err
		}
	}
	lease, err := q.run.Lease(ctx, on)
	if err != nil {
		return Replayed{}, err
	}
	defer lease.Release()
	if out.Revision = rev; rev == "" {
		out.Revision = lease.Revision().ID
	}
	out.Now = q.replayOn(ctx, inv, lease, out.Revision)
	return out, ctx.Err()
}

// kept finds the request of an invocation, and its terminal record where it has ended.
func (q *Queue) kept(ctx context.Context, id functions.InvocationID) (*functions.Invocation, *functions.Result, error) {
	if _, ok := id.FunctionHash(); !ok {
		return nil, nil, notFound(id)
	}
	m, rec, err := q.find(ctx, id)
	if err != nil && !fault.Is(err, fault.CodeInvocationNotFound) {
		return nil, nil, err
	}
	if m != nil {
		inv, err := decodeInvocation(m.Data)
		return &inv, nil, err
	}
	if rec != nil && rec.Request != nil {
		return rec.Request, rec, nil
	}
	// A dead letter may outlive the result.
	letter, lerr := q.ShowDead(ctx, id)
	switch {
	case lerr == nil:
		return &letter.Invocation, rec, nil
	case !fault.Is(lerr, fault.CodeInvocationNotFound):
		return nil, nil, lerr
	case rec == nil:
		return nil, nil, notFound(id)
	}
	return nil, nil, fault.New(fault.CodeConflict, "the request of %s is not kept", id).
		WithHint("set queue: {keepRequests: true} in tatami.yaml: those of later invocations are kept as long as their results")
}

// outputOf is what an invocation gave that has ended.
func (q *Queue) outputOf(ctx context.Context, rec *functions.Result) (Output, error) {
	out := Output{State: rec.State, Status: rec.Status, Reason: rec.Reason, Header: rec.Header}
	if n := len(rec.Attempts); n > 0 {
		last := rec.Attempts[n-1]
		out.Revision, out.Took = last.Revision, last.Ended.Sub(last.Started)
	}
	if rec.Status == 0 {
		return out, nil
	}
	body, _, err := q.OpenBody(ctx, rec)
	if err != nil {
		return out, err
	}
	defer func() { _ = body.Close() }()
	return out, out.read(body)
}

// read takes the body as far as it is kept.
func (o *Output) read(body io.Reader) error {
	data, err := io.ReadAll(io.LimitReader(body, maxReplayed+1))
	if o.Cut = len(data) > maxReplayed; o.Cut {
		data = data[:maxReplayed]
	}
	o.Body = data
	return err
}

// replayOn runs an invocation on a lease and reads its answer. What fails is part of the output.
func (q *Queue) replayOn(ctx context.Context, inv *functions.Invocation, lease Lease, rev functions.RevisionID) (out Output) {
	timeout := lease.Revision().Config.WithDefaults().Timeout.Std()
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fault.New(fault.CodeFunctionTimeout, "it did not finish its answer within %s, its timeout", timeout))
	defer cancel()
	begun := time.Now()
	out = Output{Revision: rev, State: functions.StateDead}
	defer func() { out.Took = time.Since(begun) }()
	failed := func(err error) Output {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		out.Status, out.Header, out.Body, out.Reason = 0, nil, nil, err.Error()
		return out
	}
	first := *inv
	first.Attempt = 1
	r, err := q.request(ctx, &first)
	if err != nil {
		return failed(err)
	}
	r.Header = named(first.Header, &first)
	r.Header[headerReplay] = []string{string(rev)}
	resp, err := lease.RoundTrip(r)
	if err != nil {
		return failed(err)
	}
	defer func() { _ = resp.Body.Close() }()
	out.Status, out.Header = resp.StatusCode, endToEnd(resp.Header)
	if err := out.read(resp.Body); err != nil {
		return failed(err)
	}
	switch v, _ := judge(resp, time.Now()); v {
	case succeeded:
		out.State = functions.StateSucceeded
	default:
		out.Reason = fmt.Sprintf("the function answered %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	}
	return out
}

// Ended returns the invocations of a function that have ended and were accepted between two times, the oldest first, at most limit: the newest of
// them where there are more.
func (q *Queue) Ended(ctx context.Context, ref functions.Ref, from, to time.Time, limit int) ([]Status, error) {
	if err := q.waitReady(ctx); err != nil {
		return nil, err
	}
	return q.endedWhere(ctx, ref, limit, func(st *Status) bool {
		return !st.Accepted.Before(from) && st.Accepted.Before(to)
	})
}
