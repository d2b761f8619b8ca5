package worker

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/runtime/sandbox"
)

const (
	// freezePatience is how long an instance may take to stand still. One that reads from a slow disk cannot.
	freezePatience = time.Second
	// tightShare is the part of the machine's memory, one of so many, below which what is frozen gives back what it can.
	tightShare = 10
	// reclaims is how many instances give back between two reports.
	reclaims = 8
)

// frost is whether an instance is frozen. The bit in its slots tells that it may be, so that taking a slot of one that runs takes no lock.
type frost struct {
	// freezing is set while the driver is freezing.
	freezing atomic.Pointer[context.CancelFunc]
	// thawed tells the instance's goroutine that it runs again.
	thawed chan struct{}

	mu     sync.Mutex
	frozen bool
	// pins counts what must not be frozen though it holds no slot.
	pins int
	// given says that it gave back its memory since it was frozen.
	given bool
}

// freeze freezes the instance unless it is in use.
func (in *instance) freeze(sb sandbox.Sandbox) (bool, error) {
	ctx, cancel := context.WithTimeout(in.startCtx, freezePatience)
	defer cancel()
	f := &in.frost
	f.mu.Lock()
	defer f.mu.Unlock()
	// Before the slots tell: whoever sees the bit can end what is under way.
	f.freezing.Store(&cancel)
	defer f.freezing.Store(nil)
	if f.pins > 0 || !in.slots.freeze() {
		return false, nil
	}
	f.frozen, f.given = true, false
	if err := sb.Freeze(ctx); err != nil {
		if ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			err = nil
		}
		return false, errors.Join(err, in.thawLocked(sb))
	}
	in.swapState(functions.InstanceReady, functions.InstanceFrozen)
	return true, nil
}

// thaw returns once the instance runs. It ends a freeze that is under way.
func (in *instance) thaw() error {
	f := &in.frost
	if cancel := f.freezing.Load(); cancel != nil {
		(*cancel)()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.frozen {
		return nil
	}
	if err := in.thawLocked(in.sandbox()); err != nil {
		return err
	}
	in.swapState(functions.InstanceFrozen, functions.InstanceReady)
	select {
	case f.thawed <- struct{}{}:
	default:
	}
	return nil
}

// thawLocked lets the processes run, then says so; frost.mu is held.
func (in *instance) thawLocked(sb sandbox.Sandbox) error {
	if err := sb.Thaw(); err != nil {
		return err
	}
	in.frost.frozen = false
	in.slots.thaw()
	return nil
}

// pin keeps the instance from being frozen until unpin is called.
func (in *instance) pin() (unpin func(), err error) {
	count := func(n int) {
		in.frost.mu.Lock()
		defer in.frost.mu.Unlock()
		in.frost.pins += n
	}
	if cancel := in.frost.freezing.Load(); cancel != nil {
		(*cancel)()
	}
	count(1)
	if err := in.thaw(); err != nil {
		count(-1)
		return nil, err
	}
	return func() { count(-1) }, nil
}

// swapState changes one state into another; in any third it does nothing.
func (in *instance) swapState(from, to functions.InstanceState) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.state == from {
		in.setStateLocked(to, "")
	}
}

// idleFor is for how long no slot has been held.
func (in *instance) idleFor(now time.Time) time.Duration {
	if in.slots.held() > 0 {
		return 0
	}
	in.mu.Lock()
	since := in.ready
	in.mu.Unlock()
	return min(now.Sub(since), now.Sub(in.born)-time.Duration(in.lastUsed.Load()))
}

// freezeAfter is how long the instance stays idle before it is frozen; zero: it never is.
func (w *Worker) freezeAfter(r *Record) time.Duration {
	switch {
	case w.cfg.FreezeAfter < 0 || r.Awake:
		return 0
	case r.FreezeAfter > 0:
		return r.FreezeAfter.Std()
	}
	return w.cfg.FreezeAfter
}

// rest returns when the instance's process has ended or its end was asked for. Until then it freezes the instance whenever it was idle for long.
func (w *Worker) rest(in *instance, sb sandbox.Sandbox) {
	after := w.freezeAfter(&in.record)
	timer := time.NewTimer(after)
	defer timer.Stop()
	if after == 0 {
		timer.Stop()
	}
	for {
		select {
		case <-sb.Done():
			return
		case <-in.asked:
			return
		case <-in.frost.thawed:
			w.out.changed(in)
			timer.Reset(after)
		case now := <-timer.C:
			if left := after - in.idleFor(now); left > 0 {
				timer.Reset(left)
				continue
			}
			frozen, err := in.freeze(sb)
			if fault.Is(err, fault.CodeUnavailable) {
				w.log.Info("an idle instance goes on, for it cannot be frozen", "fn", in.record.Ref().String(), "inst", in.id(), "err", err)
				timer.Stop()
				continue
			}
			if err != nil {
				w.log.Warn("an idle instance was not frozen", "fn", in.record.Ref().String(), "inst", in.id(), "err", err)
			}
			if !frozen {
				timer.Reset(after)
				continue
			}
			w.out.frozen(in)
		}
	}
}

// reclaim lets frozen instances give back memory while the machine has little left, the longest idle first.
func (w *Worker) reclaim(ctx context.Context) {
	if w.cannotReclaim || w.capacity.Memory-w.load.Load().Memory > w.capacity.Memory/tightShare {
		return
	}
	now := time.Now()
	for _, in := range longestIdle(*w.table.Load(), now) {
		given, err := in.giveBack(ctx)
		switch {
		case errors.Is(err, errors.ErrUnsupported):
			w.cannotReclaim = true
			w.log.Debug("the memory of frozen instances stays theirs", "err", err)
			return
		case err != nil:
			w.log.Warn("a frozen instance gave no memory back", "fn", in.record.Ref().String(), "inst", in.id(), "err", err)
		case given > 0:
			w.log.Debug("a frozen instance gave memory back", "fn", in.record.Ref().String(), "inst", in.id(), "bytes", given)
		}
	}
}

// giveBack asks once for what a frozen instance can do without. A slot that is taken meanwhile does not wait for it.
func (in *instance) giveBack(ctx context.Context) (int64, error) {
	f := &in.frost
	f.mu.Lock()
	asks := f.frozen && !f.given
	f.given = true
	f.mu.Unlock()
	if !asks {
		return 0, nil
	}
	given, err := in.sandbox().Reclaim(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		// It has ended meanwhile.
		err = nil
	}
	return given, err
}

// longestIdle lists frozen instances that have memory to give, those first that have been idle the longest.
func longestIdle(all map[functions.InstanceID]*instance, now time.Time) []*instance {
	var out []*instance
	for _, in := range all {
		in.frost.mu.Lock()
		if in.frost.frozen && !in.frost.given {
			out = append(out, in)
		}
		in.frost.mu.Unlock()
	}
	slices.SortFunc(out, func(a, b *instance) int { return cmp.Compare(b.idleFor(now), a.idleFor(now)) })
	return out[:min(len(out), reclaims)]
}
