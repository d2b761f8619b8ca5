package invoke

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// Lease is a slot of an instance. Release must be called once the answer has been read.
type Lease struct {
	inv    *Invoker
	fn     *function
	inst   *instance
	rev    *functions.Revision
	ep     *bus.Endpoint
	cold   bool
	waited time.Duration
	// thawed is how long the worker took to let an instance run again that was frozen.
	thawed time.Duration
	// counted says that the namespace counts the lease.
	counted  bool
	released atomic.Bool
	// under is the exchange of RoundTrip.
	under atomic.Pointer[exchange]
}

// Lease takes a slot of an instance of the function's live revision, and waits for one if there is none. A lease of class Sync waits
// for the function's timeout at most, one of class Async until ctx ends. Faults: function-not-found, unavailable (first deploy under
// way), function-not-ready (instances do not start), waiting-list-full, quota-exceeded, start-timeout.
func (inv *Invoker) Lease(ctx context.Context, ref functions.Ref, class Class) (*Lease, error) {
	f, rt, err := inv.routes.find(ctx, ref)
	if err != nil {
		return nil, err
	}
	if rt.live == nil {
		return nil, f.noLive(rt)
	}
	now := time.Now()
	var deadline time.Time
	if class == Sync {
		deadline = now.Add(rt.live.Config.Timeout.Std())
		if full := f.ns.enter(); full != nil {
			return nil, f.ns.full(full)
		}
	} else if err := f.ns.enterWait(ctx); err != nil {
		return nil, err
	}
	l := &Lease{}
	if err := inv.lease(ctx, l, f, class, now, deadline, rt.live.Config.Timeout); err != nil {
		f.ns.leave()
		return nil, err
	}
	l.counted = true
	return l, nil
}

// lease takes a slot and makes l its lease. A zero deadline leaves the end of the wait to ctx; limit is what the deadline came from.
func (inv *Invoker) lease(ctx context.Context, l *Lease, f *function, class Class, now, deadline time.Time, limit functions.Duration) error {
	g, w := f.pool.acquire(class, inv.cfg.MaxWaiting, now)
	inv.activate(f)
	if g.err != nil {
		return g.err
	}
	if w == nil {
		if thawed, err := inv.admit(g.ep); err == nil {
			*l = Lease{inv: inv, fn: f, inst: g.inst, rev: g.rev, ep: g.ep, thawed: thawed}
			return nil
		}
		w = f.pool.waiter(class)
		f.pool.again(g.inst, w, now)
	}
	return inv.wait(ctx, l, f, w, now, deadline, limit)
}

func (inv *Invoker) wait(ctx context.Context, l *Lease, f *function, w *waiter, begun, deadline time.Time, limit functions.Duration) error {
	inv.cfg.Awake.Expect()
	inv.need(f)
	if w.expiry.at = deadline; !deadline.IsZero() {
		f.deadlines.add(&w.expiry, w)
		defer f.deadlines.remove(&w.expiry)
	}
	for {
		select {
		case g := <-w.ready:
			if errors.Is(g.err, errWaited) {
				return f.noSlot(limit, f.pool.slots(), inv.pending.why(ctx, f.ref))
			}
			if g.err != nil {
				return g.err
			}
			thawed, err := inv.admit(g.ep)
			if err != nil {
				f.pool.again(g.inst, w, time.Now())
				continue
			}
			*l = Lease{
				inv: inv, fn: f, inst: g.inst, rev: g.rev, ep: g.ep, waited: time.Since(begun), cold: g.inst.added.After(begun), thawed: thawed,
			}
			return nil
		case <-ctx.Done():
			if g, granted := f.pool.leave(w, time.Now()); granted && g.inst != nil {
				f.pool.release(g.inst, time.Now())
			}
			if e := fault.From(context.Cause(ctx)); e != nil {
				return e
			}
			return fault.Wrap(fault.CodeStartTimeout, ctx.Err(), "waiting for an instance of %s", f.ref)
		}
	}
}

// admit takes the slot at the worker, and says how long that took where the instance was frozen.
func (inv *Invoker) admit(ep *bus.Endpoint) (thawed time.Duration, _ error) {
	if !ep.Frozen {
		return 0, inv.workers.Admit(ep.Node, ep.Instance)
	}
	begun := time.Now()
	err := inv.workers.Admit(ep.Node, ep.Instance)
	return time.Since(begun), err
}

// Release gives the slot back; further calls do nothing.
func (l *Lease) Release() { l.release(time.Now(), false) }

func (l *Lease) release(now time.Time, suspect bool) {
	if !l.released.CompareAndSwap(false, true) {
		return
	}
	l.inv.workers.Release(l.ep.Node, l.ep.Instance)
	if suspect {
		l.fn.pool.suspect(l.inst, now)
	} else {
		l.fn.pool.release(l.inst, now)
	}
	if l.counted {
		l.fn.ns.leave()
	}
}

// Revision is what the instance runs.
func (l *Lease) Revision() *functions.Revision { return l.rev }

// Endpoint is the instance.
func (l *Lease) Endpoint() bus.Endpoint { return *l.ep }

// Cold reports whether the lease waited for an instance that was not there when it was asked for.
func (l *Lease) Cold() bool { return l.cold }

// Waited is how long the lease took, 0 where a slot was free.
func (l *Lease) Waited() time.Duration { return l.waited }
