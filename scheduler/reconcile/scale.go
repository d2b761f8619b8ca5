package reconcile

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/scheduler/autoscale"
	"github.com/tatami-faas/tatami/scheduler/keepalive"
	"github.com/tatami-faas/tatami/scheduler/state"
)

// scale decides how many instances the live revision should have and starts what lacks. It reports whether some lack and could not be started.
func (r *Reconciler) scale(now time.Time, f *state.Function) bool {
	live := f.Revision(f.Record.Live)
	if live == nil {
		f.Desired, f.Reason = 0, "no revision has the traffic"
		if f.Record.Live != "" {
			f.Reason = "the record of revision " + string(f.Record.Live) + " is not known yet"
		}
		return false
	}
	active, ready := r.count(f, live.Record.ID)
	s := scaleOf(live)
	in := r.signals(f)
	in.Ready, in.Current = ready, active
	floor := s.KeepAlive
	kept := r.keep(now, f, live, &in)
	s.KeepAlive = kept.keepAlive
	f.History.Keep(s.Stable())
	dec := autoscale.Decide(now, in, s)
	if kept.ahead {
		r.startAhead(f, live, &dec, kept.why)
	}
	f.Desired, f.Reason, f.Scaling = dec.Desired, dec.Reason, dec.Memory
	f.Peak.Observe(now, floor, dec.Desired)
	if ready > 0 && live.Record.State == functions.RevisionPending && r.mayWrite(now, f) {
		r.out = append(r.out, Effect{Kind: MarkReady, Ref: f.Ref, Revision: live.Record.ID})
	}
	r.expire(now, f, in, s.KeepAlive)
	lack := dec.Desired - active
	if lack <= 0 {
		f.ShortSince = time.Time{}
		return false
	}
	if f.ShortSince.IsZero() {
		f.ShortSince = now
	}
	if d := &f.Deploy; f.Record.Candidate != "" && d.Revision == f.Record.Candidate && now.Sub(d.Short) < shortHolds {
		f.Pending = fmt.Sprintf("what room there is goes to revision %s, which is being deployed", d.Revision)
		return false
	}
	r.recovered(now, f, live)
	awaited := in.Waiting > 0 || in.Backlog > 0
	for range lack {
		if !r.may() {
			return true
		}
		if f.Pending = held(now, live, awaited); f.Pending != "" {
			return true
		}
		if f.Pending, _ = r.start(now, f, live, f.ShortSince, dec.Reason, false); f.Pending != "" {
			return true
		}
	}
	f.ShortSince = time.Time{}
	return false
}

// expire has the function looked at when its keep-alive ends, not at some tick after that.
func (r *Reconciler) expire(now time.Time, f *state.Function, in autoscale.Signals, keepAlive time.Duration) {
	if len(f.Instances) == 0 || in.LastDemand.IsZero() || in.Waiting+in.Backlog+in.InFlight > 0 {
		return
	}
	if end := in.LastDemand.Add(keepAlive); now.Before(end) {
		r.at(end)
		return
	}
	for _, i := range f.Instances {
		if i.Held > 0 && !i.Reported.After(f.LastDemand) {
			// The gateways have said since that nothing runs: the worker will tell.
			r.askAbout(now, i)
		}
	}
}

// held says why no start of the revision is tried now; empty when it may be.
func held(now time.Time, rev *state.Revision, awaited bool) string {
	retry := rev.Retry
	if soonest := rev.Failed.Add(awaitedLast); awaited && soonest.Before(retry) {
		retry = soonest
	}
	if now.Before(retry) {
		return fmt.Sprintf("%s failed: %s; the next try is in %s", times(rev.Failures, "start"), rev.Why, in(now, retry))
	}
	retry = rev.CrashRetry
	if awaited {
		// Whoever waits gets a start at once: a function that crashes at one request may serve the next. One that goes on crashing must
		// not take the node's processors for starts.
		retry = time.Time{}
		if rev.Crashes > crashesFree {
			retry = rev.Started.Add(crashPause)
		}
	}
	if now.Before(retry) {
		return fmt.Sprintf("%s ended soon after being ready: %s; the next start is in %s", times(rev.Crashes, "instance"), rev.Why, in(now, retry))
	}
	return ""
}

func times(n int, what string) string {
	if n == 1 {
		return "the last " + what
	}
	return fmt.Sprintf("the last %d %ss", n, what)
}

func in(now, at time.Time) time.Duration { return at.Sub(now).Round(100 * time.Millisecond) }

func scaleOf(rev *state.Revision) autoscale.Scale {
	c := rev.Record.Config.Scale
	return autoscale.Scale{
		Min: c.Min, Max: c.Max, Initial: c.Initial, Reserved: c.Reserved,
		Concurrency: rev.Record.Config.Concurrency, Utilization: float64(c.Utilization) / 100, Burst: c.Burst,
		Window: c.Window.Std(), KeepAlive: c.KeepAlive.Std(), DownDelay: c.DownDelay.Std(),
	}
}

// signals gathers the function's load. What instances say of their last use counts too: after a restart it is all there is.
func (r *Reconciler) signals(f *state.Function) autoscale.Signals {
	waiting, backlog, inFlight := f.Level()
	last := f.LastDemand
	for _, in := range f.Instances {
		if in.LastUsed.After(last) {
			last = in.LastUsed
		}
		if in.Held > 0 && in.Reported.After(last) {
			last = in.Reported
		}
	}
	return autoscale.Signals{Waiting: waiting, Backlog: backlog, InFlight: inFlight, History: &f.History, LastDemand: last, Memory: f.Scaling}
}

// stopSurplus stops what the live revision has too much of.
func (r *Reconciler) stopSurplus(now time.Time, f *state.Function) {
	live := f.Revision(f.Record.Live)
	if live == nil || len(f.Instances) <= min(f.Desired, live.Record.Config.Scale.Max) {
		return
	}
	r.drainBeyond(now, f, live)
	var all []keepalive.Instance
	for _, in := range f.Instances {
		// One that starts may never get ready: it replaces none.
		if in.Revision == live.Record.ID && in.Active() && in.State != functions.InstanceStarting && !r.leaving(in.Node) {
			all = append(all, idleness(f, in))
		}
	}
	if len(all) <= f.Desired {
		return
	}
	peak, known := f.Peak.Max(now)
	if !known {
		peak = len(all)
	}
	p := keepalive.Policy{Desired: f.Desired, Peak: peak, KeepAlive: live.Record.Config.Scale.KeepAlive.Std()}
	if f.Plan != nil {
		in := r.signals(f)
		if kept := r.keep(now, f, live, &in); kept.over {
			p.KeepAlive, p.Why = 0, kept.why
		}
	}
	for _, c := range keepalive.Surplus(now, all, p) {
		r.stop(now, f, f.Instances[c.ID], 0, c.Reason)
	}
	for _, in := range all {
		if end := in.LastUsed.Add(p.KeepAlive); !in.Busy && now.Before(end) {
			r.at(end)
		}
	}
}

// drainBeyond drains what the live revision has beyond its maximum, however much that is used: a node that was taken for lost came back with what it
// runs, which others had replaced. One that shares its node with another goes first.
func (r *Reconciler) drainBeyond(now time.Time, f *state.Function, live *state.Revision) {
	var serving []*state.Instance
	on := map[functions.NodeID]int{}
	for _, in := range f.Instances {
		if in.Revision == live.Record.ID && in.Active() && in.State.Serves() && !r.leaving(in.Node) {
			serving = append(serving, in)
			on[in.Node]++
		}
	}
	for beyond := len(serving) - live.Record.Config.Scale.Max; beyond > 0; beyond-- {
		last := slices.MinFunc(serving, func(a, b *state.Instance) int {
			return cmp.Or(cmp.Compare(on[b.Node], on[a.Node]), cmp.Compare(a.Held, b.Held), a.LastUsed.Compare(b.LastUsed), cmp.Compare(b.Instance, a.Instance))
		})
		serving = slices.DeleteFunc(serving, func(in *state.Instance) bool { return in == last })
		on[last.Node]--
		r.drain(now, f, last, fmt.Sprintf("there are more than the %d that may be", live.Record.Config.Scale.Max))
	}
}

// idleness says since when an instance can be known to be idle. A report tells it for the time until then; demand of the function after that
// may have used any of its instances.
func idleness(f *state.Function, in *state.Instance) keepalive.Instance {
	last := in.LastUsed
	if last.IsZero() {
		last = in.ReadyAt
	}
	if f.LastDemand.After(in.Reported) && f.LastDemand.After(last) {
		last = f.LastDemand
	}
	return keepalive.Instance{ID: in.Instance, Busy: in.Held > 0 || !in.State.Serves(), LastUsed: last}
}
