package queue

import (
	"context"
	"strings"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// sweepGrace spares bodies whose record may be about to be written: a request's body is stored before its message, an answer's before
// its result.
const sweepGrace = 2 * time.Hour

// sweepLoop removes bodies without an owner from time to time.
func (q *Queue) sweepLoop(ctx context.Context) {
	sweep := time.NewTimer(min(time.Minute, q.cfg.SweepEvery))
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-sweep.C:
			if err := q.sweep(ctx, time.Now().Add(-sweepGrace)); err != nil && ctx.Err() == nil {
				q.log.Warn("sweeping the bodies", "err", err)
			}
			if err := q.unpin(ctx, time.Now().Add(-pinnedFor)); err != nil && ctx.Err() == nil {
				q.log.Warn("removing pinned revisions that nobody uses", "err", err)
			}
			sweep.Reset(q.cfg.SweepEvery)
		}
	}
}

// sweep removes the bodies older than a time that no result, no message and no dead letter names.
func (q *Queue) sweep(ctx context.Context, before time.Time) error {
	objects, err := q.bus.Bodies().List(ctx)
	if err != nil {
		return err
	}
	removed := 0
	for _, o := range objects {
		if o.Modified.After(before) {
			continue
		}
		owned, err := q.owned(ctx, o.Name)
		if err != nil {
			return err
		}
		if owned {
			continue
		}
		if err := q.bus.Bodies().Delete(ctx, o.Name); err != nil {
			return err
		}
		removed++
	}
	if removed > 0 {
		q.log.Info("bodies without an owner are removed", "count", removed)
	}
	return nil
}

// owned reports whether a body is still of use.
func (q *Queue) owned(ctx context.Context, name string) (bool, error) {
	first, kind, ok := strings.Cut(name, "/")
	id := functions.InvocationID(first)
	if _, valid := id.FunctionHash(); !ok || !valid {
		return false, nil
	}
	if hash, ok := strings.CutPrefix(kind, "key-"); ok {
		rec, _, err := q.bus.Keys().Get(ctx, hash)
		if fault.Is(err, fault.CodeNotFound) {
			return false, nil
		}
		return err != nil || rec.BodyRef != nil && rec.BodyRef.Object == name, err
	}
	dead, _ := bus.DeadSubject(id)
	if kind == "request" {
		if seq, err := q.lastDead(ctx, dead); err != nil || seq > 0 {
			return true, err
		}
	}
	// What waits has its request, and may be about to have an answer.
	waiting, _ := bus.InvocationSubject(id)
	scheduled, _ := bus.ScheduledSubject(id)
	for _, subject := range []string{waiting, scheduled, waiting} {
		if seq, err := q.lastOf(ctx, subject); err != nil || seq > 0 {
			return true, err
		}
	}
	rec, _, err := q.bus.Results().Get(ctx, bus.ResultKey(id))
	if fault.Is(err, fault.CodeInvocationNotFound) {
		return false, nil
	}
	if err != nil {
		return true, err
	}
	names := func(ref *functions.BodyRef) bool { return ref != nil && ref.Object == name }
	return names(rec.BodyRef) || rec.Request != nil && names(rec.Request.BodyRef), nil
}
