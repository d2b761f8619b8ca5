package scheduler

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/scheduler/reconcile"
)

const (
	// saveSlice is of how many functions the idle times are gathered at once, savePause the time until the next ones are: nothing waits for it.
	saveSlice = 64
	savePause = time.Second
	// savesAtOnce is how many are stored at the same time.
	savesAtOnce = 32
)

// recall hands what was stored of idle times to the loop.
func (s *Scheduler) recall(ctx context.Context, synced func()) error {
	ctx, done := context.WithCancel(ctx)
	defer done()
	return s.bus.IdleTimes().Watch(ctx, "", func(e bus.Event[functions.IdleTimes]) {
		switch {
		case e.Synced:
			synced()
			done()
		case !e.Deleted:
			s.offer(ctx, func(time.Time) []reconcile.Effect { s.core.Recall(e.Value); return nil })
		}
	})
}

// save stores what is learnt of idle times, now and then, until ctx ends. What a crash loses was learnt since the last time.
func (s *Scheduler) save(ctx context.Context) {
	for pause(ctx, s.cfg.SaveEvery) {
		// What is learnt meanwhile waits for the next time.
		for left, slices := 1, 0; left > 0 && (slices == 0 || pause(ctx, savePause)); slices++ {
			list, more := s.gather(ctx)
			s.store(ctx, list)
			if slices == 0 {
				left = (more + saveSlice - 1) / saveSlice
			} else {
				left--
			}
		}
	}
}

// pause waits; false when ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// gather asks the loop for a slice of what is to be stored.
func (s *Scheduler) gather(ctx context.Context) (list []reconcile.Learnt, more int) {
	done := make(chan struct{})
	s.offer(ctx, func(now time.Time) []reconcile.Effect {
		defer close(done)
		list, more = s.core.Learnt(now, saveSlice)
		return nil
	})
	select {
	case <-done:
		return list, more
	case <-ctx.Done():
		return nil, 0
	}
}

// saveAll stores everything; the loop has ended.
func (s *Scheduler) saveAll(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.SaveWithin)
	defer cancel()
	s.store(ctx, s.core.Unsaved(time.Now()))
}

// store writes records of idle times. One that fails is let go of: it comes again with what is learnt next.
func (s *Scheduler) store(ctx context.Context, list []reconcile.Learnt) {
	table := s.bus.IdleTimes()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(savesAtOnce)
	for _, l := range list {
		g.Go(func() (err error) {
			if gctx.Err() != nil {
				return gctx.Err()
			}
			if l.Times == nil {
				err = table.Delete(gctx, bus.FunctionKey(l.Ref))
			} else {
				_, err = table.Put(gctx, bus.FunctionKey(l.Ref), *l.Times)
			}
			if err != nil {
				err = fmt.Errorf("of %s: %w", l.Ref, err)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		s.log.Warn("not all idle times were stored", "functions", len(list), "err", err)
	}
}
