package queue

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// Call is a synchronous invocation under a key, at its beginning.
type Call struct {
	ID functions.InvocationID
	// Body is the whole body of the request and Size its length.
	Body io.ReadCloser
	Size int64
	// Answer takes the body of the function's answer.
	Answer io.Writer
}

// Outcome is what a synchronous invocation under a key came to.
type Outcome uint8

const (
	// OutcomeUnknown is that the function may have begun, and gave no whole answer.
	OutcomeUnknown Outcome = iota
	// OutcomeAnswered is that the function answered.
	OutcomeAnswered
	// OutcomeUntouched is that the function did not begin.
	OutcomeUntouched
)

// Answer is the answer to a synchronous invocation.
type Answer struct {
	ID     functions.InvocationID
	Status int
	Header http.Header
	// Body is the body, or BodyRef where it is in the object store; see OpenAnswer.
	Body    []byte
	BodyRef *functions.BodyRef
	// Replayed says that it was given before, to an earlier request with the key.
	Replayed bool
}

// Once runs a synchronous invocation at most once under r.Key: the record of the key is on disk before run is called, and the answer before
// Once returns it. A repetition gets that answer; while the first one runs, a conflict; where nobody knows what came of the first one,
// outcome-unknown, unless the function says that it may be run again. Then, and where the function did not begin, it is run again under the same id.
// run goes on when the caller leaves: its context ends only when the gateway does.
func (q *Queue) Once(ctx context.Context, r Request, run func(ctx context.Context, c Call) (status int, h http.Header, o Outcome)) (Answer, error) {
	rev, err := q.mayTake(ctx, &r)
	if err != nil {
		return Answer{}, err
	}
	now := r.now.UTC()
	rec := functions.KeyRecord{
		Schema: functions.Schema, ID: functions.NewInvocationID(r.Ref), Namespace: r.Ref.Namespace, Function: r.Ref.Name,
		State: functions.KeyRunning, Created: now, Until: keyUntil(now, now.Add(rev.Config.Queue.MaxAge.Std())),
	}
	asked := functions.Invocation{ID: rec.ID, Body: r.Body}
	if err := q.takeBody(ctx, &r, &asked); err != nil {
		return Answer{}, err
	}
	if asked.BodyRef != nil {
		defer q.removeBody(asked.BodyRef)
	}
	rec.Request = requestHash("called", r.Method, r.Path, r.Query, bodyHash(&asked))
	c := &keyedCall{hash: keyHash(r.Ref, r.Caller, r.Key), rec: rec}
	old, err := q.beginCall(ctx, c, rev.Config.RetrySafe)
	if err != nil {
		return Answer{}, err
	}
	if old != nil {
		return Answer{ID: old.ID, Status: old.Status, Header: old.Header, Body: old.Body, BodyRef: old.BodyRef, Replayed: true}, nil
	}
	defer q.stopCalling(c.hash)
	body, size, err := q.OpenRequest(ctx, &asked)
	if err == nil {
		defer func() { _ = body.Close() }()
		err = q.bus.Barrier(ctx, bus.StreamKeys)
	}
	if err != nil {
		q.untouched(c)
		return Answer{}, err
	}
	answer := q.newAnswer(bus.BodyObject(c.rec.ID, "key-"+c.hash))
	defer answer.discard()
	status, h, outcome := q.call(ctx, c, Call{ID: c.rec.ID, Body: body, Size: size, Answer: answer}, run)
	return q.endCall(c, answer, status, h, outcome)
}

// keyedCall is a synchronous invocation under a key, and the record that says that it runs.
type keyedCall struct {
	hash     string
	rec      functions.KeyRecord
	revision uint64
	// again says that an earlier one under the key may have reached the function.
	again bool
}

// beginCall makes the record say that the invocation runs; old is the record of one that has its answer.
func (q *Queue) beginCall(ctx context.Context, c *keyedCall, again bool) (old *functions.KeyRecord, err error) {
	unlock, err := q.lockKey(ctx, c.hash)
	if err != nil {
		return nil, err
	}
	defer unlock()
	cur, revision, err := q.bus.Keys().Get(ctx, c.hash)
	switch {
	case fault.Is(err, fault.CodeNotFound):
	case err != nil:
		return nil, err
	case cur.Request != c.rec.Request:
		return nil, mismatched()
	case cur.State == functions.KeyAnswered:
		return &cur, q.bus.Barrier(ctx, bus.StreamKeys)
	case q.isCalling(c.hash):
		return nil, fault.New(fault.CodeConflict, "the first request with this idempotency key is still running, as %s", cur.ID).
			WithRetryAfter(time.Second).WithHint("repeat it later: the answer is kept")
	case !again:
		return nil, fault.New(fault.CodeOutcomeUnknown, "an earlier request with this idempotency key, %s, ended without an answer: whether the function did its work is not known", cur.ID).
			WithHint("look at what it did, then use a new key; a function that may be run again says so: retrySafe in tatami.yaml")
	default:
		c.rec.ID, c.revision, c.again = cur.ID, revision, true
	}
	if err := q.startCalling(c.hash); err != nil {
		return nil, err
	}
	if c.revision, err = q.bus.Keys().Put(ctx, c.hash, &c.rec, c.revision); err != nil {
		q.stopCalling(c.hash)
	}
	return nil, err
}

// startCalling says that an invocation runs under the key, for which the end of Run waits.
func (q *Queue) startCalling(hash string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	select {
	case <-q.ending:
		return fault.New(fault.CodeDraining, "the gateway is stopping").WithRetryAfter(time.Second)
	default:
	}
	q.calling[hash] = true
	q.work.Add(1)
	return nil
}

func (q *Queue) isCalling(hash string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.calling[hash]
}

func (q *Queue) stopCalling(hash string) {
	q.mu.Lock()
	delete(q.calling, hash)
	q.mu.Unlock()
	q.work.Done()
}

// call runs the function. A run that panics leaves the outcome unknown.
func (q *Queue) call(ctx context.Context, kc *keyedCall, c Call, run func(context.Context, Call) (int, http.Header, Outcome)) (status int, h http.Header, o Outcome) {
	// The client may leave: its answer is kept for when it asks again.
	base, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	defer context.AfterFunc(q.alive, func() { cancel(fault.New(fault.CodeDraining, "the server is stopping").WithRetryAfter(time.Second)) })()
	ended := false
	defer func() {
		if !ended {
			q.unknown(kc)
		}
	}()
	status, h, o = run(base, c)
	ended = true
	return status, h, o
}

// endCall writes what the invocation came to, and waits for the disk where it is an answer.
func (q *Queue) endCall(c *keyedCall, body *answerBody, status int, h http.Header, o Outcome) (Answer, error) {
	data, ref, err := body.close()
	a := Answer{ID: c.rec.ID, Status: status, Header: h, Body: data, BodyRef: ref}
	switch o {
	case OutcomeUntouched:
		q.untouched(c)
		return a, nil
	case OutcomeUnknown:
		q.unknown(c)
		return a, nil
	}
	if errors.Is(err, errTooLarge) {
		err = fault.New(fault.CodeFunctionBadResponse, "it is larger than %d bytes, which is what can be kept under an idempotency key", q.cfg.MaxResult)
	}
	if err == nil {
		// What is written here outlives the caller and the drain.
		ctx, cancel := q.outliving()
		defer cancel()
		answered := c.rec
		answered.State, answered.Status, answered.Header, answered.Body, answered.BodyRef = functions.KeyAnswered, status, lasting(h), data, ref
		if _, err = q.bus.Keys().Put(ctx, c.hash, &answered, c.revision); err == nil {
			body.kept = true
			if err = q.bus.Barrier(ctx, bus.StreamKeys, q.bus.Bodies().Stream()); err == nil {
				return a, nil
			}
		}
	}
	if !body.kept {
		q.unknown(c)
	}
	return Answer{}, fault.Wrap(fault.CodeOutcomeUnknown, err, "the function answered %d, and the answer could not be kept", status)
}

// answerPatience bounds the wait until an answer is kept.
const answerPatience = 15 * time.Second

// outliving is a context for what is written at the end of a call, whoever has left.
func (q *Queue) outliving() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(q.alive), answerPatience)
}

// lasting is the header without what is true of one answer only.
func lasting(h http.Header) map[string][]string {
	out := endToEnd(h)
	delete(out, "Server-Timing")
	delete(out, "Date")
	return out
}

// untouched ends the record of an invocation that did not reach the function: it is as if it had not been asked for, whatever happens next.
func (q *Queue) untouched(c *keyedCall) {
	if c.again {
		q.unknown(c)
		return
	}
	ctx, cancel := q.outliving()
	defer cancel()
	err := q.bus.Keys().Forget(ctx, c.hash, c.revision)
	if err == nil {
		err = q.bus.Barrier(ctx, bus.StreamKeys)
	}
	if err != nil {
		q.log.Warn("an idempotency key stays although nothing was run under it", "inv", string(c.rec.ID), "err", err)
	}
}

// unknown says in the record that nobody will know the answer. Where that fails, the record still says that the invocation runs, which it does not.
func (q *Queue) unknown(c *keyedCall) {
	ctx, cancel := q.outliving()
	defer cancel()
	rec := c.rec
	rec.State = functions.KeyUnknown
	if _, err := q.bus.Keys().Put(ctx, c.hash, &rec, c.revision); err != nil {
		q.log.Debug("an idempotency key stays as it was", "inv", string(rec.ID), "err", err)
	}
}

// OpenAnswer returns the body of an answer and its size.
func (q *Queue) OpenAnswer(ctx context.Context, a *Answer) (io.ReadCloser, int64, error) {
	return q.openBody(ctx, a.Body, a.BodyRef)
}
