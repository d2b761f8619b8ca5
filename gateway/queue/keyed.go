package queue

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"math"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// Receipt is what Submit says of an invocation that is on disk.
type Receipt struct {
	ID functions.InvocationID
	// Replayed says that the request had been accepted before under its key.
	Replayed bool
}

const (
	// keyLeast is how long the record of a key is kept at least.
	keyLeast = 24 * time.Hour
	// keySpare is how much longer than the invocation may wait it is kept.
	keySpare = time.Hour
)

// keyHash is the name of a key's record: the function, who asked and the key itself, each with its length.
func keyHash(ref functions.Ref, caller, key string) string {
	return hashOf(ref.Namespace, ref.Name, caller, key)
}

// requestHash tells one request under a key from another. Body is the hash of the body.
func requestHash(kind, method, path, query, body string) string {
	return hashOf(kind, method, path, query, body)
}

func hashOf(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		n := uint64(len(p))
		h.Write([]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
		_, _ = io.WriteString(h, p)
	}
	return hex.EncodeToString(h.Sum(nil)[:20])
}

// bodyHash is the hash of the body of an invocation that is about to be stored.
func bodyHash(inv *functions.Invocation) string {
	if inv.BodyRef != nil {
		return inv.BodyRef.SHA256
	}
	sum := sha256.Sum256(inv.Body)
	return hex.EncodeToString(sum[:])
}

// keyUntil is when the record of a key may be forgotten.
func keyUntil(now, deadline time.Time) time.Time {
	until := deadline.Add(keySpare)
	if least := now.Add(keyLeast); until.Before(least) {
		return least
	}
	return until
}

// lockKey waits until nobody else in this process uses the key. unlock must be called.
func (q *Queue) lockKey(ctx context.Context, hash string) (unlock func(), err error) {
	for {
		q.mu.Lock()
		held, busy := q.keys[hash]
		if !busy {
			free := make(chan struct{})
			q.keys[hash] = free
			q.mu.Unlock()
			return func() {
				q.mu.Lock()
				delete(q.keys, hash)
				q.mu.Unlock()
				close(free)
			}, nil
		}
		q.mu.Unlock()
		select {
		case <-held:
		case <-ctx.Done():
			return nil, fault.Wrap(fault.CodeUnavailable, ctx.Err(), "waiting for another request with the same idempotency key")
		}
	}
}

// mismatched is the answer to another request under a key.
func mismatched() error {
	return fault.New(fault.CodeKeyMismatch, "the idempotency key was used with another request").WithField("Idempotency-Key").
		WithHint("use a key for one request only: the same method, path, query and body, and either queued or not")
}

// submitKeyed stores an invocation under its key, unless one is there: then that one is what the caller gets.
//
// The record is written before the message and says pending; one barrier covers both. Whoever finds it pending looks for the message and
// publishes it where it is missing, under the same id. That it is accepted is noted behind the answer: a note that gets lost leaves it pending.
func (q *Queue) submitKeyed(ctx context.Context, r *Request, rev *functions.Revision) (Receipt, error) {
	hash := keyHash(r.Ref, r.Caller, r.Key)
	inv := r.invocation(rev)
	if err := q.takeBody(ctx, r, &inv); err != nil {
		return Receipt{}, err
	}
	kept := false
	defer func() {
		if inv.BodyRef != nil && !kept {
			q.removeBody(inv.BodyRef)
		}
	}()
	rec := functions.KeyRecord{
		Schema: functions.Schema, ID: inv.ID, Namespace: r.Ref.Namespace, Function: r.Ref.Name,
		Request: requestHash("queued", r.Method, r.Path, r.Query, bodyHash(&inv)), State: functions.KeyPending,
		Created: inv.Accepted, Until: keyUntil(inv.Accepted, inv.Deadline), Invocation: &inv,
	}
	unlock, err := q.lockKey(ctx, hash)
	if err != nil {
		return Receipt{}, err
	}
	defer unlock()
	t := q.tallyOf(r.Ref)
	room := t.take(rev.Config.Queue.MaxPending)
	if room == nil {
		var revision uint64
		if revision, err = q.bus.Keys().Put(ctx, hash, &rec, 0); err == nil {
			// From here on the message may name the body, whatever the error.
			kept = true
			if err := q.storeKeyed(ctx, &inv, hash, &rec, revision); err != nil {
				t.ended(inv.ID)
				return Receipt{}, err
			}
			return Receipt{ID: inv.ID}, nil
		}
		t.ended(inv.ID)
		if !fault.Is(err, fault.CodeConflict) {
			return Receipt{}, err
		}
	}
	old, revision, err := q.bus.Keys().Get(ctx, hash)
	switch {
	case fault.Is(err, fault.CodeNotFound) && room != nil:
		return Receipt{}, room
	case fault.Is(err, fault.CodeNotFound):
		return Receipt{}, fault.New(fault.CodeUnavailable, "the idempotency key has just ended").WithRetryAfter(time.Second)
	case err != nil:
		return Receipt{}, err
	case old.Request != rec.Request:
		return Receipt{}, mismatched()
	case old.State == functions.KeyPending:
		kept, err = q.storeAgain(ctx, &inv, hash, &old, revision)
	default:
		err = q.bus.Barrier(ctx, bus.StreamKeys, bus.StreamInvocations)
	}
	return Receipt{ID: old.ID, Replayed: true}, err
}

// storeKeyed publishes the invocation of a record that says pending, and notes that it is accepted.
func (q *Queue) storeKeyed(ctx context.Context, inv *functions.Invocation, hash string, rec *functions.KeyRecord, revision uint64) error {
	streams := []string{bus.StreamKeys, bus.StreamInvocations}
	if inv.BodyRef != nil {
		streams = append(streams, q.bus.Bodies().Stream())
	}
	if err := q.put(ctx, inv, streams...); err != nil {
		return err
	}
	q.noteKey(hash, *rec, functions.KeyAccepted, revision)
	q.arrived(inv)
	return nil
}

// noteKey changes the state of a record, where nothing is lost if the change is.
func (q *Queue) noteKey(hash string, rec functions.KeyRecord, state functions.KeyState, revision uint64) {
	rec.State, rec.Invocation = state, nil
	if err := q.bus.Keys().Note(hash, &rec, revision); err != nil {
		q.log.Debug("an idempotency key stays as it was", "inv", string(rec.ID), "state", string(state), "err", err)
	}
}

// storeAgain makes sure that the invocation of a record that says pending is stored. Taken says that it may have the body of inv.
func (q *Queue) storeAgain(ctx context.Context, inv *functions.Invocation, hash string, rec *functions.KeyRecord, revision uint64) (taken bool, err error) {
	switch _, err := q.status(ctx, rec.ID); {
	case err == nil:
		if err := q.bus.Barrier(ctx, bus.StreamKeys, bus.StreamInvocations, q.bus.Results().Stream()); err != nil {
			return false, err
		}
		q.noteKey(hash, *rec, functions.KeyAccepted, revision)
		return false, nil
	case !fault.Is(err, fault.CodeInvocationNotFound):
		return false, err
	}
	t := q.tallyOf(inv.Ref())
	if err := t.take(math.MaxInt); err != nil {
		return false, err
	}
	inv.ID = rec.ID
	if old := inv.BodyRef; old != nil {
		defer q.removeBody(old)
		if err := q.renameBody(ctx, inv); err != nil {
			t.ended(inv.ID)
			return true, err
		}
	}
	if err := q.storeKeyed(ctx, inv, hash, rec, revision); err != nil {
		t.ended(inv.ID)
		return true, err
	}
	return true, nil
}

// renameBody stores the request's body anew under the name that follows from the invocation's id: the sweep goes by names.
func (q *Queue) renameBody(ctx context.Context, inv *functions.Invocation) error {
	body, _, err := q.bus.Bodies().Open(ctx, inv.BodyRef.Object)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	inv.BodyRef, err = q.spill(ctx, bus.BodyObject(inv.ID, "request"), body, q.cfg.MaxBody)
	return err
}

// settleKeys looks at the keys that an earlier process left open: an invocation that is not stored is stored, as it is in the record, and one that was
// called and has no answer is not known to have ended.
func (q *Queue) settleKeys(ctx context.Context) {
	settled, left := 0, 0
	err := q.bus.Keys().Open(ctx, func(hash string) {
		ok, err := q.settleKey(ctx, hash)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			left++
			q.log.Debug("an idempotency key of an earlier run is left as it is", "key", hash, "err", err)
		case ok:
			settled++
		}
	})
	if err != nil && ctx.Err() == nil {
		q.log.Warn("idempotency keys of an earlier run are not all looked at: each is when it is used again", "err", err)
	}
	if settled+left > 0 {
		q.log.Info("idempotency keys that a stop left open are settled", "count", settled, "left", left)
	}
}

func (q *Queue) settleKey(ctx context.Context, hash string) (settled bool, err error) {
	unlock, err := q.lockKey(ctx, hash)
	if err != nil {
		return false, err
	}
	defer unlock()
	rec, revision, err := q.bus.Keys().Get(ctx, hash)
	if fault.Is(err, fault.CodeNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	switch {
	case rec.State == functions.KeyPending:
		_, err := q.status(ctx, rec.ID)
		if fault.Is(err, fault.CodeInvocationNotFound) {
			return q.storePending(ctx, hash, &rec, revision)
		}
		if err != nil {
			return false, err
		}
		rec.State, rec.Invocation = functions.KeyAccepted, nil
	case rec.State == functions.KeyRunning && !q.isCalling(hash):
		rec.State = functions.KeyUnknown
	default:
		return false, nil
	}
	_, err = q.bus.Keys().Put(ctx, hash, &rec, revision)
	if fault.Is(err, fault.CodeConflict) {
		// A request under the key has just said more.
		return false, nil
	}
	return err == nil, err
}

// storePending stores the invocation of a record that says pending, of a process that ended before it could. A record of an earlier version
// does not have it: who repeats the request stores it.
func (q *Queue) storePending(ctx context.Context, hash string, rec *functions.KeyRecord, revision uint64) (stored bool, err error) {
	inv := rec.Invocation
	if inv == nil || time.Now().After(inv.Deadline) {
		return false, nil
	}
	t := q.tallyOf(inv.Ref())
	if err := t.take(math.MaxInt); err != nil {
		return false, err
	}
	if err := q.storeKeyed(ctx, inv, hash, rec, revision); err != nil {
		t.ended(inv.ID)
		return false, err
	}
	return true, nil
}
