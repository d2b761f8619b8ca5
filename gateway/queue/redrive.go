package queue

import (
	"context"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// Redrive hands the invocation of a dead letter over again, as a new one, and takes the letter away once that is on disk: after a crash in
// between both are there. The new invocation has the function's attempts and maximum age anew, its ordering key and its callback are those of the old
// one, and it runs on a revision where one is named; the record of the old one stays.
func (q *Queue) Redrive(ctx context.Context, id functions.InvocationID, rev functions.RevisionID) (functions.InvocationID, error) {
	// One at a time: a letter is redriven once, whoever asks.
	q.redriving.Lock()
	defer q.redriving.Unlock()
	letter, err := q.ShowDead(ctx, id)
	if err != nil {
		return "", err
	}
	again, err := q.runAgain(ctx, &letter.Invocation, rev)
	if err != nil {
		return "", err
	}
	// Acceptance does not wait for the disk where the function's durability is fast. The letter is on disk, so what takes its place must be.
	if err := q.bus.Barrier(ctx, bus.StreamInvocations, q.bus.Bodies().Stream()); err != nil {
		return "", err
	}
	if err := q.dropLetter(ctx, &letter); err != nil {
		q.log.Warn("a redriven dead letter stays", "inv", string(id), "err", err)
	}
	return again, nil
}

// runAgain accepts an invocation again, as a new one.
func (q *Queue) runAgain(ctx context.Context, old *functions.Invocation, rev functions.RevisionID) (functions.InvocationID, error) {
	if _, _, delivery := old.Ref().Delivers(); delivery {
		if rev != "" {
			return "", fault.New(fault.CodeInvalidRequest, "%s goes to a destination, which has no revisions", old.ID).WithField("revision")
		}
		return q.redeliver(ctx, old)
	}
	r := Request{
		Ref: old.Ref(), Method: old.Method, Path: old.Path, Query: old.Query, Header: old.Header, Body: old.Body, Trigger: old.Trigger,
		RedriveOf: old.ID, Revision: rev, Of: old.Of, Hops: old.Hops, OrderingKey: old.OrderingKey, Callback: old.Callback,
	}
	if old.BodyRef != nil {
		body, _, err := q.OpenRequest(ctx, old)
		if err != nil {
			return "", err
		}
		defer func() { _ = body.Close() }()
		r.BodyReader = body
	}
	return q.Accept(ctx, r)
}

// dropLetter takes a dead letter and the body that it keeps away.
func (q *Queue) dropLetter(ctx context.Context, letter *functions.DeadLetter) error {
	subject, _ := bus.DeadSubject(letter.Invocation.ID)
	if err := q.bus.Dead().Purge(ctx, jetstream.WithPurgeSubject(subject)); err != nil {
		return q.bus.Fault(err, "removing the dead letter")
	}
	if ref := letter.Invocation.BodyRef; ref != nil {
		q.removeBody(ref)
	}
	return nil
}

// PurgeDead removes dead letters of a function, at most limit, and says how many, when they are gone on disk, too.
func (q *Queue) PurgeDead(ctx context.Context, ref functions.Ref, limit int) (int, error) {
	letters, err := q.Dead(ctx, ref, limit)
	if err != nil {
		return 0, err
	}
	for n := range letters {
		if err := q.dropLetter(ctx, &letters[n]); err != nil {
			return n, err
		}
	}
	return len(letters), q.bus.BarrierRemovals(ctx, bus.StreamDead)
}
