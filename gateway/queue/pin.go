package queue

import (
	"context"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

const (
	// pinnedFor is how long a pinned revision is kept behind its last use: longer than anything may wait that is to run on it.
	pinnedFor = MaxDelay + 8*24*time.Hour
	// pinNoted is how often its use is noted.
	pinNoted = time.Hour
)

// pin makes a revision of a function run beside the live one, and returns the name under which it does: the function's own where it is the live
// one. It scales to zero, and has no destinations and nothing reserved.
func (q *Queue) pin(ctx context.Context, ref functions.Ref, id functions.RevisionID) (functions.Ref, error) {
	live, err := q.run.Lookup(ctx, ref)
	if err != nil {
		return functions.Ref{}, err
	}
	if live.ID == id {
		return ref, nil
	}
	rev, _, err := q.bus.Revisions().Get(ctx, bus.RevisionKey(ref, id))
	if fault.Is(err, fault.CodeNotFound) {
		return functions.Ref{}, fault.New(fault.CodeNotFound, "%s has no revision %.40q", ref, string(id)).WithField("revision").WithHint("tatami rev ls %s", ref)
	}
	if err != nil {
		return functions.Ref{}, err
	}
	if rev.State != functions.RevisionReady {
		return functions.Ref{}, fault.New(fault.CodeConflict, "revision %s of %s never became ready", id, ref).WithField("revision").
			WithHint("tatami rev ls %s", ref)
	}
	p := ref.Pinned(id)
	if err := q.storePinned(ctx, p, rev); err != nil {
		return functions.Ref{}, err
	}
	_, err = q.run.Lookup(ctx, p)
	return p, err
}

// storePinned stores the records of a pinned revision, or notes that they are used.
func (q *Queue) storePinned(ctx context.Context, p functions.Ref, rev functions.Revision) error {
	now, key := time.Now().UTC(), bus.FunctionKey(p)
	fn, at, err := q.bus.Functions().Get(ctx, key)
	switch {
	case err == nil && now.Sub(fn.Updated) < pinNoted:
		return nil
	case err == nil:
		fn.Updated = now
		fn.Generation++
		_, err = q.bus.Functions().Update(ctx, key, fn, at)
		if fault.Is(err, fault.CodeConflict) {
			// Somebody else has just noted it.
			return nil
		}
		return err
	case !fault.Is(err, fault.CodeFunctionNotFound):
		return err
	}
	rev.Function, rev.Created = p.Name, now
	rev.Config.Scale.Min, rev.Config.Scale.Reserved, rev.Config.Scale.Initial = 0, 0, 0
	rev.Config.Queue.OnSuccess, rev.Config.Queue.OnFailure = functions.Destination{}, functions.Destination{}
	if rev.ID, err = functions.RevisionIDOf(p, rev.Artifact, rev.Config); err != nil {
		return err
	}
	if _, err := q.bus.Revisions().Put(ctx, bus.RevisionKey(p, rev.ID), rev); err != nil {
		return err
	}
	_, err = q.bus.Functions().Create(ctx, key, functions.Function{
		Schema: functions.Schema, Namespace: p.Namespace, Name: p.Name, Live: rev.ID, Revisions: []functions.RevisionID{rev.ID}, Generation: 1, Created: now, Updated: now,
	})
	if fault.Is(err, fault.CodeConflict) {
		err = nil
	}
	if err != nil {
		return err
	}
	return q.bus.Barrier(ctx, q.bus.Functions().Stream(), q.bus.Revisions().Stream())
}

// unpin removes the pinned revisions that were not used for long.
func (q *Queue) unpin(ctx context.Context, before time.Time) error {
	all, err := q.bus.Functions().List(ctx, "")
	if err != nil {
		return err
	}
	for _, e := range all {
		if _, _, pinned := e.Value.Ref().PinnedTo(); !pinned || e.Value.Updated.After(before) {
			continue
		}
		if err := q.bus.Functions().DeleteRevision(ctx, e.Key, e.Revision); err != nil {
			return err
		}
		if err := q.bus.Revisions().Delete(ctx, bus.RevisionKey(e.Value.Ref(), e.Value.Live)); err != nil {
			return err
		}
	}
	return nil
}

// runsOn is the name under which an invocation runs: its function's, or that of the revision it is pinned to.
func (q *Queue) runsOn(inv *functions.Invocation) functions.Ref {
	if inv.Revision == "" {
		return inv.Ref()
	}
	if live, err := q.run.Lookup(q.alive, inv.Ref()); err == nil && live.ID == inv.Revision {
		return inv.Ref()
	}
	return inv.Ref().Pinned(inv.Revision)
}
