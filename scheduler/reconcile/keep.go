package reconcile

import (
	"cmp"
	"time"

	"github.com/tatami-faas/tatami/scheduler/autoscale"
	"github.com/tatami-faas/tatami/scheduler/keepalive"
	"github.com/tatami-faas/tatami/scheduler/state"
)

const (
	// idleShare is the part of the nodes' memory that may be idle before its price rises: one of so many.
	idleShare = 4
	// priced is how often the price follows what is idle.
	priced = 10 * time.Second
	// startGuess is how long a cold start is taken to last before one was seen.
	startGuess = 500 * time.Millisecond
)

// keeping is for how long a function's instances are kept now.
type keeping struct {
	// keepAlive is how long after the last need the function counts as in use.
	keepAlive time.Duration
	// ahead says that there should be an instance, though nobody needs it yet.
	ahead bool
	// why replaces the words about a fixed time.
	why string
	// over says that the time of the plan is over: nothing is kept.
	over bool
}

// keep says how long the function's instances are kept: as configured, or within what is configured by its own idle times.
func (r *Reconciler) keep(now time.Time, f *state.Function, live *state.Revision, in *autoscale.Signals) keeping {
	c := live.Record.Config
	k := keeping{keepAlive: c.Scale.KeepAlive.Std()}
	if c.Scale.KeepAliveMax == 0 {
		r.unlearn(f)
		return k
	}
	if in.LastDemand.IsZero() {
		return k
	}
	if f.Rhythm == nil {
		f.Rhythm = &keepalive.Rhythm{}
	}
	if f.Rhythm.Needed(in.LastDemand) {
		r.learnt[f.Ref] = struct{}{}
	}
	took := f.StartTook
	if took == 0 {
		took = startGuess
	}
	plan := f.Rhythm.Plan(keepalive.Ask{
		Price: r.market.Price(), Memory: c.Limits.Resources().Memory, Start: took,
		Floor: k.keepAlive, Ceiling: c.Scale.KeepAliveMax.Std(), Busy: f.Rhythm.Busy(),
	})
	f.Plan = &plan
	k.why = plan.String()
	k.keepAlive = plan.Keep
	if in.Waiting+in.Backlog+in.InFlight > 0 {
		return k
	}
	age := now.Sub(in.LastDemand)
	if next := plan.Next(age); next > 0 {
		r.at(in.LastDemand.Add(next))
	}
	switch {
	case !plan.Warm(age):
		k.over = true
	case age >= plan.Keep:
		k.keepAlive, k.ahead = plan.Until, f.Record.Candidate == ""
	}
	return k
}

// startAhead wants an instance before anybody does, if there is room: nothing has to go for it.
func (r *Reconciler) startAhead(f *state.Function, live *state.Revision, dec *autoscale.Decision, why string) {
	if dec.Desired > 0 || live.Record.Config.Scale.Max < 1 {
		return
	}
	if req := r.state.Request(f, live); !r.state.Engine().Place(&req).Placed() {
		return
	}
	dec.Desired, dec.Reason = 1, "ahead of its need: "+why
}

// price lets the price of idle memory follow what is idle.
func (r *Reconciler) price(now time.Time) {
	if now.Sub(r.pricedAt) < priced {
		return
	}
	r.pricedAt = now
	var idle, all int64
	for _, in := range r.state.Instances {
		if in.State.Serves() && in.Held == 0 {
			idle += in.Reserved.Memory
		}
	}
	for _, n := range r.state.NodeOrder() {
		if n.Open() {
			all += n.Allocatable.Memory
		}
	}
	r.market.Adjust(now, idle, cmp.Or(r.cfg.IdleMemory, all/idleShare))
}

// took remembers how long a start lasted, the later ones more than the earlier.
func took(f *state.Function, d time.Duration) {
	if f.StartTook == 0 {
		f.StartTook = d
	}
	f.StartTook += (d - f.StartTook) / 4
}
