package reconcile

import (
	"fmt"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/scheduler/state"
)

// start places an instance of the revision and commands its start; where it does not fit, it makes room if that can be and says what
// refused. Own lets busy instances of the function's other revisions give way. Never says that nothing that may end will change the refusal.
func (r *Reconciler) start(now time.Time, f *state.Function, rev *state.Revision, asked time.Time, why string, own bool) (refusal string, never bool) {
	rec := rev.Record
	in := state.Instance{}
	in.Namespace, in.Function, in.Revision, in.Slots = f.Namespace, f.Name, rec.ID, rec.Config.Concurrency
	req := r.state.Request(f, rev)
	placed, choice := r.state.Reserve(now, in, &req, r.newID)
	f.Sought, f.Refused = rec.ID, nil
	if placed == nil {
		no := r.state.Engine().Refusal(&req, choice)
		f.Refused = &no
		if refusal = no.Reason(); no.Never {
			return refusal, true
		}
		none := !serves(f)
		if none {
			r.yield()
		}
		if making := r.makeRoom(now, f, rev, &req, choice.Quota, giver{own: own, others: now.Sub(asked) >= yieldAfter && none}); making != "" {
			refusal += "; " + making
		}
		f.Events.Add(now, "", "not placed: "+refusal)
		return refusal, false
	}
	r.starts--
	if _, lacks := r.short[f.Ref]; lacks {
		r.short[f.Ref] = now
	}
	rev.Started, rev.Made = now, time.Time{}
	f.ColdStarts++
	f.Events.Add(now, placed.Instance, fmt.Sprintf("placed on %s: %s; because %s", r.state.Nodes[placed.Node].Name, placed.Placement(), why))
	r.command(placed, bus.Command{Action: bus.ActionStart, Revision: rec, Reason: why, Asked: asked})
	r.at(now.Add(commandRepeat))
	return "", false
}

func (r *Reconciler) command(in *state.Instance, c bus.Command) {
	c.Envelope = bus.Envelope{Schema: bus.Schema, Node: in.Node, Instance: in.Instance, Epoch: bus.Epoch}
	r.out = append(r.out, Effect{Kind: Send, Command: c, Ref: in.Ref(), Revision: in.Revision})
}

// stop ends an instance unless it is in use, or was within quiet.
func (r *Reconciler) stop(now time.Time, f *state.Function, in *state.Instance, quiet time.Duration, why string) {
	in.Stopping = now
	f.Events.Add(now, in.Instance, "to stop: "+why)
	r.command(in, bus.Command{Action: bus.ActionStop, Quiet: functions.Duration(quiet), Reason: why, Asked: now})
}

// drain ends an instance once what runs on it is done. It does nothing for one that drains already.
func (r *Reconciler) drain(now time.Time, f *state.Function, in *state.Instance, why string) {
	if !in.DrainSent.IsZero() || in.State == functions.InstanceDraining {
		r.look(f)
		return
	}
	timeout := time.Minute
	if rev := f.Revision(in.Revision); rev != nil {
		timeout = rev.Record.Config.Timeout.Std()
	}
	in.DrainSent, in.Deadline = now, now.Add(timeout)
	in.Reason = why
	f.Events.Add(now, in.Instance, "to drain: "+why)
	r.command(in, bus.Command{Action: bus.ActionDrain, Reason: why, Asked: now, Deadline: in.Deadline})
	r.look(f)
}

// repeat sends again what no report has answered, and takes back what none will.
func (r *Reconciler) repeat(now time.Time, f *state.Function) {
	for _, in := range f.Ordered() {
		switch {
		case !in.Confirmed && now.Sub(in.First) >= commandGivenUp:
			was := *in
			was.State, was.Reason = functions.InstanceFailed, fmt.Sprintf("its node did not take the start within %s", commandGivenUp)
			d := state.Departure{Instance: was, Before: functions.InstanceStarting}
			// Should a command arrive after all, this one follows it.
			r.command(in, bus.Command{Action: bus.ActionStop, Reason: was.Reason, Asked: now})
			r.state.Remove(in.Instance)
			r.gone(now, &d)
		case !in.Confirmed:
			rev := f.Revision(in.Revision)
			if rev != nil && in.DrainSent.IsZero() && now.Sub(in.Commanded) >= commandRepeat {
				in.Commanded = now
				r.command(in, bus.Command{Action: bus.ActionStart, Revision: rev.Record, Reason: "repeated: no report confirmed it", Asked: in.First})
			}
			if again := in.Commanded.Add(commandRepeat); again.After(now) {
				r.at(again)
			} else {
				r.look(f)
			}
		case !in.DrainSent.IsZero():
			r.look(f)
			if in.State != functions.InstanceDraining && now.Sub(in.DrainSent) >= drainRepeat {
				in.DrainSent = now
				r.command(in, bus.Command{Action: bus.ActionDrain, Reason: in.Reason, Asked: now, Deadline: in.Deadline})
			}
		}
		// A stop is settled by the next report: gone, or as it was.
	}
}
