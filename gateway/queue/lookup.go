package queue

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// Status is where an invocation stands.
type Status struct {
	ID    functions.InvocationID
	Ref   functions.Ref
	State functions.InvocationState
	// Attempt is the number of the attempt under way or to come; of the last one, where the invocation ended.
	Attempt int
	// Attempts are those that were made.
	Attempts []functions.Attempt
	Accepted time.Time
	// Deadline is when the last attempt may start; zero where the invocation ended.
	Deadline time.Time
	// Started is when the attempt under way began, Next when the one to come is due; else zero.
	Started, Next time.Time
	// Result is set where the state is terminal.
	Result *functions.Result
}

// Lookup tells where an invocation stands. With wait it waits as long for the end, a minute at most, and tells then where the
// invocation stands; ctx ends the wait too. An id that names nothing that is kept gives invocation-not-found at once.
func (q *Queue) Lookup(ctx context.Context, id functions.InvocationID, wait time.Duration) (Status, error) {
	if err := q.waitReady(ctx); err != nil {
		return Status{}, err
	}
	if _, ok := id.FunctionHash(); !ok {
		return Status{}, notFound(id)
	}
	if wait <= 0 {
		return q.status(ctx, id)
	}
	timer := time.NewTimer(min(wait, maxWait))
	defer timer.Stop()
	for {
		// The registration comes before the look, so that an end in between is not missed.
		ended, forget := q.await(id)
		st, err := q.status(ctx, id)
		if err != nil || st.State.Terminal() {
			forget()
			return st, err
		}
		select {
		case <-ended:
			// A look at the store follows: the message may also have been let go, or the attempt have failed.
		case <-timer.C:
			forget()
			return st, nil
		case <-ctx.Done():
			forget()
			return st, nil
		case <-q.ending:
			forget()
			return st, nil
		}
	}
}

// Follow calls fn with where an invocation stands, and again each time that has changed, until it has ended, fn gives an error, which is
// returned, or ctx ends. Changes that follow each other at once may be told as one.
func (q *Queue) Follow(ctx context.Context, id functions.InvocationID, fn func(Status) error) error {
	if err := q.waitReady(ctx); err != nil {
		return err
	}
	if _, ok := id.FunctionHash(); !ok {
		return notFound(id)
	}
	look := time.NewTicker(followEvery)
	defer look.Stop()
	var told Status
	for {
		changed, forget := q.await(id)
		st, err := q.status(ctx, id)
		if err == nil && (st.State != told.State || st.Attempt != told.Attempt || len(st.Attempts) != len(told.Attempts)) {
			told = st
			err = fn(st)
		}
		if err != nil || st.State.Terminal() {
			forget()
			return err
		}
		select {
		case <-changed:
			continue
		case <-look.C:
			// A time that has come is told by nobody.
		case <-ctx.Done():
			forget()
			return nil
		case <-q.ending:
			forget()
			return nil
		}
		forget()
	}
}

// followEvery is how often Follow looks without having been told.
const followEvery = time.Second

func notFound(id functions.InvocationID) error {
	return fault.New(fault.CodeInvocationNotFound, "there is no invocation %.64q", string(id)).
		WithHint("results are kept for a time only; see result-ttl")
}

// await returns a channel that is closed when this process is done with a message of the invocation.
func (q *Queue) await(id functions.InvocationID) (<-chan struct{}, func()) {
	ch := make(chan struct{})
	q.mu.Lock()
	q.waiters[id] = append(q.waiters[id], ch)
	q.mu.Unlock()
	return ch, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		left := slices.DeleteFunc(q.waiters[id], func(c chan struct{}) bool { return c == ch })
		if len(left) == 0 {
			delete(q.waiters, id)
		} else {
			q.waiters[id] = left
		}
	}
}

func (q *Queue) notify(id functions.InvocationID) {
	q.mu.Lock()
	chans := q.waiters[id]
	delete(q.waiters, id)
	q.mu.Unlock()
	for _, ch := range chans {
		close(ch)
	}
}

// status looks at this process's hands, at the results, at the messages. An invocation moves from message to message to result, and
// each place is written before the one before it is cleared: so a second look finds what moved during the first.
func (q *Queue) status(ctx context.Context, id functions.InvocationID) (Status, error) {
	for range 2 {
		// While it is in hand, its result may be written and not yet on disk: it is not told.
		if st, ok := q.inHand(id); ok {
			return st, nil
		}
		m, rec, err := q.look(ctx, id)
		switch {
		case err != nil:
			return Status{}, err
		case rec != nil:
			// It may have been taken in hand since, and its result be written and not yet on disk.
			if st, ok := q.inHand(id); ok {
				return st, nil
			}
			// Where a sync failed, nobody knows whether the record is on disk.
			return ended(*rec), q.bus.Failure()
		case m != nil:
			return fromMessage(m)
		}
	}
	return Status{}, notFound(id)
}

// find returns the message of an invocation in the stream, or the record of its end; invocation-not-found where there is neither.
func (q *Queue) find(ctx context.Context, id functions.InvocationID) (*jetstream.RawStreamMsg, *functions.Result, error) {
	for range 2 {
		if m, rec, err := q.look(ctx, id); err != nil || m != nil || rec != nil {
			return m, rec, err
		}
	}
	return nil, nil, notFound(id)
}

// look looks once at the results and at the messages.
func (q *Queue) look(ctx context.Context, id functions.InvocationID) (*jetstream.RawStreamMsg, *functions.Result, error) {
	rec, _, err := q.bus.Results().Get(ctx, bus.ResultKey(id))
	if err == nil {
		return nil, &rec, nil
	}
	if !fault.Is(err, fault.CodeInvocationNotFound) {
		return nil, nil, err
	}
	waiting, _ := bus.InvocationSubject(id)
	scheduled, _ := bus.ScheduledSubject(id)
	for _, subject := range []string{waiting, scheduled} {
		m, err := q.bus.Invocations().GetLastMsgForSubject(ctx, subject)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			return nil, nil, q.bus.Fault(err, "looking for the invocation")
		}
		return m, nil, nil
	}
	return nil, nil, nil
}

func (q *Queue) inHand(id functions.InvocationID) (Status, bool) {
	q.mu.Lock()
	h := q.held[id]
	var since time.Time
	var data []byte
	if h != nil {
		since, data = h.since, h.msg.Data
	}
	q.mu.Unlock()
	if h == nil {
		return Status{}, false
	}
	inv, err := decodeInvocation(data)
	if err != nil {
		return Status{}, false
	}
	st := open(&inv, functions.StateAccepted)
	if !since.IsZero() {
		st.State, st.Started = functions.StateRunning, since.UTC()
	}
	return st, true
}

func ended(rec functions.Result) Status {
	return Status{
		ID: rec.ID, Ref: functions.Ref{Namespace: rec.Namespace, Name: rec.Function}, State: rec.State,
		Attempt: len(rec.Attempts), Attempts: rec.Attempts, Accepted: rec.Accepted, Result: &rec,
	}
}

func open(inv *functions.Invocation, state functions.InvocationState) Status {
	// Without what the names are parts of: the whole message.
	id, ref := strings.Clone(string(inv.ID)), functions.Ref{Namespace: strings.Clone(inv.Namespace), Name: strings.Clone(inv.Function)}
	return Status{
		ID: functions.InvocationID(id), Ref: ref, State: state, Attempt: inv.Attempt, Attempts: inv.History,
		Accepted: inv.Accepted, Deadline: inv.Deadline,
	}
}

// fromMessage reads a message of the work queue.
func fromMessage(m *jetstream.RawStreamMsg) (Status, error) {
	inv, err := decodeInvocation(m.Data)
	if err != nil {
		return Status{}, err
	}
	st := open(&inv, functions.StateAccepted)
	if class, _, _ := split(m.Subject); class == "sched" {
		st.State = functions.StateScheduled
		if len(inv.History) > 0 {
			st.State = functions.StateRetryWait
		}
		st.Next = inv.NotBefore
	}
	return st, nil
}

// OpenBody returns the body of a result and its size.
func (q *Queue) OpenBody(ctx context.Context, rec *functions.Result) (io.ReadCloser, int64, error) {
	return q.openBody(ctx, rec.Body, rec.BodyRef)
}

// OpenRequest returns the body of a stored invocation and its size.
func (q *Queue) OpenRequest(ctx context.Context, inv *functions.Invocation) (io.ReadCloser, int64, error) {
	return q.openBody(ctx, inv.Body, inv.BodyRef)
}

func (q *Queue) openBody(ctx context.Context, inline []byte, ref *functions.BodyRef) (io.ReadCloser, int64, error) {
	if ref == nil {
		return io.NopCloser(bytes.NewReader(inline)), int64(len(inline)), nil
	}
	return q.bus.Bodies().Open(ctx, ref.Object)
}
