package reconcile

import (
	"fmt"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/scheduler/keepalive"
	"github.com/tatami-faas/tatami/scheduler/state"
)

// Learnt is what is to be stored of a function's idle times; Times is nil where nothing of them is to be kept.
type Learnt struct {
	Ref   functions.Ref
	Times *functions.IdleTimes
}

// Recall hands in what was stored of a function's idle times before this start. It counts if it comes before Synced.
func (r *Reconciler) Recall(t functions.IdleTimes) {
	if !r.synced {
		r.recalled[t.Ref()] = t
	}
}

// restore takes up what was recalled. What is stored of a function that is no more is to be forgotten, and so is what cannot be read.
func (r *Reconciler) restore(now time.Time) {
	var saved time.Time
	for ref, t := range r.recalled {
		f := r.state.Functions[ref]
		if f == nil || f.Record == nil {
			r.learnt[ref] = struct{}{}
			continue
		}
		rhythm, err := keepalive.Restore(&t)
		if err != nil || rhythm.Last().After(now) {
			r.out = append(r.out, Effect{Kind: Tell, Reason: fmt.Sprintf("what is stored of the idle times of %s is not taken: %v", ref, err)})
			r.learnt[ref] = struct{}{}
			continue
		}
		f.Rhythm, f.StartTook = rhythm, t.Start.Std()
		if f.LastDemand.Before(rhythm.Last()) {
			f.LastDemand = rhythm.Last()
		}
		if t.Saved.After(saved) {
			saved = t.Saved
			r.market.Reopen(t.Price)
		}
	}
	r.recalled = nil
}

// unlearn drops what is known of the function's idle times.
func (r *Reconciler) unlearn(f *state.Function) {
	if f.Rhythm != nil {
		r.learnt[f.Ref] = struct{}{}
	}
	f.Rhythm, f.Plan = nil, nil
}

// Learnt returns what is known of the idle times of at most n functions and was not returned yet, and of how many more there is something. Every
// idle time makes one of its function.
func (r *Reconciler) Learnt(now time.Time, n int) (out []Learnt, left int) {
	for ref := range r.learnt {
		if len(out) == n {
			break
		}
		delete(r.learnt, ref)
		out = append(out, r.learntOf(now, ref))
	}
	return out, len(r.learnt)
}

// Unsaved returns what Learnt has not returned yet of any function, needs under way included. Its cost grows with the functions.
func (r *Reconciler) Unsaved(now time.Time) []Learnt {
	for ref, f := range r.state.Functions {
		if f.Rhythm != nil && !f.Rhythm.Stored() {
			r.learnt[ref] = struct{}{}
		}
	}
	out, _ := r.Learnt(now, len(r.learnt))
	return out
}

func (r *Reconciler) learntOf(now time.Time, ref functions.Ref) Learnt {
	f := r.state.Functions[ref]
	if f == nil || f.Record == nil || f.Rhythm == nil {
		return Learnt{Ref: ref}
	}
	t := &functions.IdleTimes{
		Schema: functions.Schema, Namespace: ref.Namespace, Function: ref.Name, Start: functions.Duration(f.StartTook), Saved: now.UTC(), Price: r.market.Price(),
	}
	f.Rhythm.Store(t)
	return Learnt{ref, t}
}
