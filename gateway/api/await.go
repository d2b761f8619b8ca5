package api

import (
	"cmp"
	"context"
	"sync"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// settleTime is how long the one of two records may follow the other: the function's, which drops a candidate, and its revision's, which says why.
const settleTime = 2 * time.Second

// sighting is something that was seen of a change: of the function's record, or of the revision's.
type sighting struct {
	fn  *bus.Event[functions.Function]
	rev *bus.Event[functions.Revision]
	err error
}

// await returns when the revision has the traffic; else it fails with why it will not, when the function's record has dropped it. With either comes
// the revision of the record that says so, 0 where none does.
func (a *API) await(ctx context.Context, c *change) (uint64, error) {
	limit := a.cfg.DeployTimeout + c.rev.Config.Readiness.Timeout.Std()
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errDeployTimeout)
	defer cancel()
	seen := make(chan sighting)
	var watches sync.WaitGroup
	defer watches.Wait()
	watching, stop := context.WithCancel(ctx)
	defer stop()
	send := func(s sighting) {
		select {
		case seen <- s:
		case <-watching.Done():
		}
	}
	watches.Go(func() {
		err := a.deps.Bus.Functions().Watch(watching, bus.FunctionKey(c.ref), func(e bus.Event[functions.Function]) { send(sighting{fn: &e}) })
		send(sighting{err: err})
	})
	watches.Go(func() {
		err := a.deps.Bus.Revisions().Watch(watching, bus.RevisionKey(c.ref, c.rev.ID), func(e bus.Event[functions.Revision]) { send(sighting{rev: &e}) })
		send(sighting{err: err})
	})

	var why error
	var settled <-chan time.Time
	exists, dropped := false, uint64(0)
	for {
		select {
		case s := <-seen:
			if s.err != nil {
				return 0, s.err
			}
			exists = exists || s.fn != nil && !s.fn.Synced
			if s.fn != nil && s.fn.Synced && !exists {
				s.fn.Deleted = true // it was before the watch began
			}
			done, applied, err := judge(c, s)
			if failed := err != nil && s.rev != nil && !s.rev.Deleted; failed {
				why = err
			} else if done || err != nil {
				return applied, err
			}
			if s.fn != nil && !s.fn.Synced && s.fn.Value.Candidate == "" {
				dropped = s.fn.Revision
			}
			switch {
			case why != nil && dropped > 0:
				return dropped, why
			case (why != nil || dropped > 0) && settled == nil:
				settled = time.After(settleTime)
			}
		case <-settled:
			return dropped, cmp.Or(why, superseded(c))
		case <-ctx.Done():
			if context.Cause(ctx) == errDeployTimeout { //nolint:errorlint // the very value that was set above
				return 0, a.tooLate(context.WithoutCancel(ctx), c, limit)
			}
			return 0, ctx.Err()
		}
	}
}

// judge says what a sighting means for the change: it took effect, it failed, or neither yet.
func judge(c *change, s sighting) (done bool, applied uint64, err error) {
	switch {
	case s.rev != nil && s.rev.Deleted, s.fn != nil && s.fn.Deleted:
		return false, 0, fault.New(fault.CodeConflict, "%s was deleted meanwhile", c.ref).WithOp("deploy").WithHint("tatami fn ls")
	case s.rev != nil && (s.rev.Value.State == functions.RevisionFailed || s.rev.Value.Reason != ""):
		// One that had the traffic before stays ready when it fails now, with the reason.
		return false, 0, notReady(c, s.rev.Value)
	case s.fn == nil || s.fn.Synced:
		return false, 0, nil
	}
	fn := s.fn.Value
	switch fn.Candidate {
	case c.rev.ID:
		return false, 0, nil // on its way
	case "":
		return fn.Live == c.rev.ID, s.fn.Revision, nil // else the revision's record is about to say why
	}
	if fn.Live == c.rev.ID {
		return true, s.fn.Revision, nil // it took effect; the next one is on its way already
	}
	return false, 0, superseded(c)
}

var errDeployTimeout = fault.New(fault.CodeStartTimeout, "the deploy took too long")

// tooLate is the fault of a deploy that is still under way when its time is over.
func (a *API) tooLate(ctx context.Context, c *change, limit time.Duration) error {
	e := fault.New(fault.CodeStartTimeout, "%s of %s has no instance ready after %s; it takes the traffic when one is", c.rev.ID, c.ref, functions.Duration(limit)).
		WithOp("deploy").WithHint("tatami explain %s", c.ref)
	over, err := a.overview(ctx)
	if err != nil {
		return e
	}
	for _, f := range over.Functions {
		if f.Namespace == c.ref.Namespace && f.Function == c.ref.Name && f.Pending != "" {
			e.Details = append(e.Details, f.Pending)
		}
	}
	return e
}
