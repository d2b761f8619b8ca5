package reconcile

import (
	"fmt"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/scheduler/state"
)

// ready takes note of an instance that takes requests now.
func (r *Reconciler) ready(now time.Time, in *state.Instance) {
	f := r.state.Functions[in.Ref()]
	if f == nil {
		return
	}
	if rev := f.Revisions[in.Revision]; rev != nil {
		rev.Failures, rev.Retry = 0, time.Time{}
		rev.Measure(in)
	}
	if f.Deploy.Revision == in.Revision && f.Deploy.FirstReady.IsZero() {
		f.Deploy.FirstReady = now
	}
	text := "ready"
	if !in.First.IsZero() {
		took(f, now.Sub(in.First))
		text = fmt.Sprintf("ready %s after the command", now.Sub(in.First).Round(time.Millisecond))
	}
	f.Events.Add(now, in.Instance, text)
}

// gone takes note of an instance that ended.
func (r *Reconciler) gone(now time.Time, d *state.Departure) {
	f := r.state.Functions[d.Ref()]
	if f == nil {
		return
	}
	why := d.Reason
	if why == "" {
		why = string(d.State)
	}
	// A worker that is stopping refuses starts; the revision is not to blame.
	failed := d.State == functions.InstanceFailed && !d.Lost && !r.leaving(d.Node)
	switch {
	case failed && d.Before == functions.InstanceStarting:
		f.StartFailures++
		f.Events.Add(now, d.Instance.Instance, "did not become ready: "+why)
		r.startFailed(now, f, d, why)
	case failed:
		f.Events.Add(now, d.Instance.Instance, "failed: "+why)
		r.crashed(now, f, d, why)
	default:
		f.Events.Add(now, d.Instance.Instance, "ended: "+why)
	}
}

func candidateOf(f *state.Function, id functions.RevisionID) bool {
	return f.Record != nil && f.Record.Candidate == id && f.Record.Live != id
}

func (r *Reconciler) startFailed(now time.Time, f *state.Function, d *state.Departure, why string) {
	if candidateOf(f, d.Revision) {
		noteCandidate(f, d, why)
		// Without an exit the process ran all the time, or never came to run: a second try ends the same way, unless something was away.
		f.Deploy.Final = f.Deploy.Final || d.Exit == nil && !d.Unavailable
		return
	}
	rev := f.Revisions[d.Revision]
	if rev == nil {
		return
	}
	rev.Why = why
	// Several starts that were under way together and fail together are one failure.
	if rev.Failures == 0 || started(d).After(rev.Failed) {
		rev.Failures++
		rev.Retry = now.Add(backoff(rev.Failures))
	}
	rev.Failed = now
}

func (r *Reconciler) crashed(now time.Time, f *state.Function, d *state.Departure, why string) {
	if candidateOf(f, d.Revision) {
		noteCandidate(f, d, why)
		return
	}
	rev := f.Revisions[d.Revision]
	if rev == nil {
		return
	}
	if now.Sub(d.ReadyAt) >= soon {
		rev.Crashes = 0
		return
	}
	rev.Crashes++
	rev.Crashed, rev.CrashRetry = now, now.Add(backoff(rev.Crashes))
	rev.Why = why
}

// recovered forgives a revision its crashes once an instance of it has lived on since the last one.
func (r *Reconciler) recovered(now time.Time, f *state.Function, rev *state.Revision) {
	if rev.Crashes == 0 || now.Sub(rev.Crashed) < soon {
		return
	}
	for _, in := range f.Instances {
		if in.Revision == rev.Record.ID && in.State.Serves() && now.Sub(in.ReadyAt) >= soon {
			rev.Crashes, rev.CrashRetry = 0, time.Time{}
			return
		}
	}
}

func noteCandidate(f *state.Function, d *state.Departure, why string) {
	f.Deploy.Failures++
	f.Deploy.Reason = why
	f.Deploy.Logs = d.Logs[max(0, len(d.Logs)-maxLogs):]
}

func started(d *state.Departure) time.Time {
	if !d.First.IsZero() {
		return d.First
	}
	return d.Started
}

// backoff doubles from its first to its last.
func backoff(failures int) time.Duration {
	d := backoffFirst
	for range failures - 1 {
		if d *= 2; d >= backoffLast {
			return backoffLast
		}
	}
	return d
}
