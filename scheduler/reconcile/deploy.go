package reconcile

import (
	"fmt"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/scheduler/state"
)

// deploy brings the candidate to the traffic, or ends its candidacy. It runs after scale, so Desired is the live revision's. It reports
// whether instances lack and could not be started.
func (r *Reconciler) deploy(now time.Time, f *state.Function) bool {
	id := f.Record.Candidate
	if id == "" {
		return false
	}
	r.look(f)
	cand := f.Revision(id)
	if cand == nil {
		f.Pending = "the record of revision " + string(id) + " is not known yet"
		return false
	}
	if cand.Record.State == functions.RevisionFailed {
		if r.mayWrite(now, f) {
			r.out = append(r.out, Effect{Kind: Withdraw, Ref: f.Ref, Revision: id, Reason: cand.Record.Reason})
		}
		return false
	}
	d := &f.Deploy
	if d.Final || d.Failures >= candidateTries {
		why := d.Reason
		if d.Failures > 1 {
			why = fmt.Sprintf("%s (%d starts)", why, d.Failures)
		}
		r.fail(now, f, why, d.Logs)
		return false
	}
	active, ready := r.count(f, id)
	if ready > 0 && d.FirstReady.IsZero() {
		d.FirstReady = now
	}
	enough := r.enough(f, cand)
	want := 1
	if ready > 0 {
		want = enough
	}
	// Where there is no room the function's other instances give way, so that the traffic moves from one half to the other.
	half := (enough + 1) / 2
	d.Short = time.Time{}
	var refusal string
	for active < want && r.may() {
		var never bool
		if refusal, never = r.start(now, f, cand, d.Since, "revision "+string(id)+" is being deployed", active < half); refusal != "" {
			if ready == 0 {
				r.refused(now, f, refusal, never)
			}
			if active < half {
				d.Short = now
			}
			break
		}
		active++
	}
	if f.Record.Live == "" {
		f.Desired, f.Reason = want, "revision "+string(id)+" is being deployed"
	}
	if ready >= enough || ready > 0 && (refusal != "" && ready >= half || d.Failures > 0 || now.Sub(d.FirstReady) >= carryTimeout) {
		r.promote(now, f, ready)
	}
	return refusal != ""
}

// enough is how many instances of the candidate carry what the live revision carries.
func (r *Reconciler) enough(f *state.Function, cand *state.Revision) int {
	live := f.Revision(f.Record.Live)
	if live == nil || live == cand {
		return 1
	}
	_, ready := r.count(f, live.Record.ID)
	slots := min(f.Desired, ready) * live.Record.Config.Concurrency
	per := cand.Record.Config.Concurrency
	return min(max((slots+per-1)/per, 1), max(cand.Record.Config.Scale.Max, 1))
}

// refused deals with a candidate that finds no room: at once when it never will, else after a while.
func (r *Reconciler) refused(now time.Time, f *state.Function, refusal string, never bool) {
	f.Pending = refusal
	switch {
	case never:
		f.Deploy.Final, f.Deploy.Reason = true, refusal
		r.fail(now, f, refusal, nil)
	case now.Sub(f.Deploy.Since) >= r.cfg.PlaceTimeout:
		why := fmt.Sprintf("%s; given up after %s", refusal, functions.Duration(r.cfg.PlaceTimeout))
		f.Deploy.Final, f.Deploy.Reason = true, why
		r.fail(now, f, why, nil)
	}
}

func (r *Reconciler) promote(now time.Time, f *state.Function, ready int) {
	if !r.mayWrite(now, f) {
		return
	}
	f.Events.Add(now, "", fmt.Sprintf("the traffic moves to revision %s: %d of its instances ready", f.Record.Candidate, ready))
	r.out = append(r.out, Effect{Kind: Promote, Ref: f.Ref, Revision: f.Record.Candidate})
	if rev := f.Revision(f.Record.Candidate); rev != nil {
		r.prefetch(f, rev)
	}
}

func (r *Reconciler) fail(now time.Time, f *state.Function, why string, logs []string) {
	if !r.mayWrite(now, f) {
		return
	}
	f.Events.Add(now, "", fmt.Sprintf("revision %s failed: %s", f.Record.Candidate, why))
	r.out = append(r.out, Effect{Kind: Fail, Ref: f.Ref, Revision: f.Record.Candidate, Reason: why, Logs: logs})
}

func (r *Reconciler) mayWrite(now time.Time, f *state.Function) bool {
	if !f.Writing.IsZero() && now.Sub(f.Writing) < writeRepeat {
		return false
	}
	f.Writing = now
	return true
}

// drainOld drains the instances of revisions that are neither live nor candidate. One that had the traffic keeps its instances until
// the gateways know of the change and the new one carries the load.
func (r *Reconciler) drainOld(now time.Time, f *state.Function) {
	rec := f.Record
	_, ready := r.count(f, rec.Live)
	since := now.Sub(f.LiveSince)
	carried := ready >= f.Desired && since >= r.cfg.TrafficDelay || since >= oldTimeout
	for _, in := range f.Ordered() {
		if in.Revision == rec.Live || in.Revision == rec.Candidate {
			continue
		}
		r.look(f)
		rev := f.Revision(in.Revision)
		served := rev != nil && rev.Record.State == functions.RevisionReady
		switch {
		case !served || rec.Live == "":
			r.drain(now, f, in, fmt.Sprintf("revision %s was given up", in.Revision))
		case carried || f.Pending != "" && (in.Held == 0 || since >= r.cfg.TrafficDelay):
			r.drain(now, f, in, fmt.Sprintf("revision %s has the traffic", rec.Live))
		}
	}
}
