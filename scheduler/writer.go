package scheduler

import (
	"context"
	"errors"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/scheduler/reconcile"
)

// tries is how often a record is read and replaced again when somebody else changed it in between.
const tries = 5

// errSettled says that nothing is left to be written.
var errSettled = errors.New("settled")

// writer changes the records that were asked for. Every change is checked against what is stored: an effect may come twice or late.
func (s *Scheduler) writer(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-s.write:
			start := time.Now()
			err := s.change(ctx, e)
			switch {
			case ctx.Err() != nil:
			case errors.Is(err, errSettled):
				s.offer(ctx, func(time.Time) []reconcile.Effect { return s.core.Settled(e.Ref) })
			case err != nil:
				// The effect comes again while its cause lasts.
				s.log.Error("changing a record failed", "fn", e.Ref.String(), "rev", e.Revision, "err", err)
			default:
				s.log.Info("records changed", "state", said(e.Kind), "fn", e.Ref.String(), "rev", e.Revision, "reason", e.Reason, "dur_ms", time.Since(start).Milliseconds())
			}
		}
	}
}

func said(k reconcile.Kind) string {
	switch k {
	case reconcile.Promote:
		return "promoted"
	case reconcile.Fail, reconcile.Withdraw:
		return "failed"
	default:
		return "ready"
	}
}

// change writes the revision before the function: a crash in between leaves a candidate that is ready, or failed, and the next start
// finishes what this one began.
func (s *Scheduler) change(ctx context.Context, e reconcile.Effect) error {
	fn, _, err := s.bus.Functions().Get(ctx, bus.FunctionKey(e.Ref))
	if err != nil {
		return gone(err)
	}
	switch e.Kind {
	case reconcile.Promote, reconcile.Fail, reconcile.Withdraw:
		if fn.Candidate != e.Revision {
			return errSettled
		}
	default:
		if fn.Live != e.Revision {
			return errSettled
		}
	}
	if err := s.changeRevision(ctx, e); err != nil {
		return err
	}
	switch e.Kind {
	case reconcile.Promote:
		err = s.changeFunction(ctx, e, func(f *functions.Function) {
			if f.Live != e.Revision {
				f.Previous = f.Live
			}
			f.Live, f.Candidate = e.Revision, ""
		})
	case reconcile.Fail, reconcile.Withdraw:
		err = s.changeFunction(ctx, e, func(f *functions.Function) { f.Candidate = "" })
	}
	if err != nil {
		return err
	}
	return s.bus.Barrier(ctx, s.bus.Revisions().Stream(), s.bus.Functions().Stream())
}

func (s *Scheduler) changeRevision(ctx context.Context, e reconcile.Effect) error {
	key := bus.RevisionKey(e.Ref, e.Revision)
	for range tries {
		rev, at, err := s.bus.Revisions().Get(ctx, key)
		if err != nil {
			return gone(err)
		}
		switch e.Kind {
		case reconcile.Withdraw:
			if rev.State != functions.RevisionFailed {
				return errSettled
			}
			return nil
		case reconcile.Fail:
			// One that had the traffic before stays fit for it: the next rollback to it may find better times.
			if rev.State == functions.RevisionPending {
				rev.State = functions.RevisionFailed
			}
			rev.Reason, rev.Logs = e.Reason, e.Logs
		default:
			if rev.State == functions.RevisionReady && rev.Reason == "" {
				return nil
			}
			rev.State, rev.Reason, rev.Logs = functions.RevisionReady, "", nil
		}
		if _, err = s.bus.Revisions().Update(ctx, key, rev, at); !fault.Is(err, fault.CodeConflict) {
			return err
		}
	}
	return fault.New(fault.CodeConflict, "revision %s keeps changing", e.Revision)
}

func (s *Scheduler) changeFunction(ctx context.Context, e reconcile.Effect, change func(*functions.Function)) error {
	key := bus.FunctionKey(e.Ref)
	for range tries {
		fn, at, err := s.bus.Functions().Get(ctx, key)
		if err != nil {
			return gone(err)
		}
		if fn.Candidate != e.Revision {
			return errSettled
		}
		change(&fn)
		fn.Generation++
		fn.Updated = time.Now().UTC()
		if _, err = s.bus.Functions().Update(ctx, key, fn, at); !fault.Is(err, fault.CodeConflict) {
			return err
		}
	}
	return fault.New(fault.CodeConflict, "function %s keeps changing", e.Ref)
}

// gone turns a record that is not there into nothing left to do.
func gone(err error) error {
	if fault.KindOf(err) == fault.NotFound {
		return errSettled
	}
	return err
}
