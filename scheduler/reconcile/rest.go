package reconcile

import (
	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/scheduler/state"
)

// resting reports whether neither a report that says nothing new of the function's instances nor time, before its own comes, leaves something to decide
// for it: it is at rest, or has the one instance that it should have, and what becomes of that is decided when its time comes.
func (r *Reconciler) resting(f *state.Function) bool {
	return f != nil && (f.Resting() || r.settled(f))
}

// settled reports whether the function has the one instance that it should have, idle and until a time that is noted, and nothing is under way. While
// anything waits, runs or is deployed no time is noted, or it is watched.
func (r *Reconciler) settled(f *state.Function) bool {
	if f.Record == nil || f.Desired != 1 || len(f.Instances) != 1 || f.Pending != "" || !f.Writing.IsZero() || !r.due.has(f.Ref) {
		return false
	}
	if _, under := r.watched[f.Ref]; under {
		return false
	}
	if _, lacks := r.short[f.Ref]; lacks {
		return false
	}
	live := f.Revision(f.Record.Live)
	if live == nil || live.Record.State != functions.RevisionReady {
		return false
	}
	for _, in := range f.Instances {
		return in.Revision == f.Record.Live && in.Confirmed && in.Active() && !r.leaving(in.Node) && !r.state.Nodes[in.Node].Drained()
	}
	return false
}
