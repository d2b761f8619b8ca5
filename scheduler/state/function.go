package state

import (
	"cmp"
	"slices"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/scheduler/autoscale"
	"github.com/tatami-faas/tatami/scheduler/keepalive"
	"github.com/tatami-faas/tatami/scheduler/placement"
)

// Function is a function's record, its revisions and instances, its load, and what was decided about it.
type Function struct {
	functions.Ref
	// Record is nil where the function is deleted, or was never seen while an instance of it was reported.
	Record *functions.Function
	// LiveSince is when Live became what it is.
	LiveSince time.Time
	Revisions map[functions.RevisionID]*Revision
	Instances map[functions.InstanceID]*Instance

	// Load is what the gateways state, by gateway.
	Load    map[string]Load
	History autoscale.History
	// LastDemand is when there was demand last.
	LastDemand time.Time
	Scaling    autoscale.Memory
	Peak       keepalive.Peak
	// Rhythm is when it is needed, as far as the scheduler has run, Plan what follows from it; nil where the keep-alive is a fixed time.
	Rhythm *keepalive.Rhythm
	Plan   *keepalive.Plan
	// StartTook is how long a cold start lasts; zero before one was seen.
	StartTook time.Duration

	// Desired, Reason and Pending are what was decided last.
	Desired int
	Reason  string
	Pending string
	// Sought is the revision that an instance was to be placed of last, Refused why none was placed at the last look; nil where nothing was refused.
	Sought  functions.RevisionID
	Refused *placement.Refusal
	// InVain is the node where room was kept for it last without coming free in time; zero where none was.
	InVain placement.NodeRef
	// ShortSince is when fewer instances than desired were first seen; zero while there are enough.
	ShortSince time.Time

	Deploy Deploy
	// Writing is when a change of the records was last asked for; zero when none is under way.
	Writing time.Time

	Events        Events
	ColdStarts    uint64
	StartFailures uint64

	// place is where it is in the state's list.
	place int
}

// Load is what one gateway states of a function.
type Load struct {
	Waiting, Backlog, InFlight int
}

// Deploy is the candidate's way to the traffic.
type Deploy struct {
	Revision functions.RevisionID
	Since    time.Time
	// Failures counts its instances that ended before the traffic moved; Reason and Logs are the last one's.
	Failures int
	Reason   string
	Logs     []string
	// Final says that a further try would not help.
	Final bool
	// FirstReady is when its first instance was ready.
	FirstReady time.Time
	// Short is when it was refused room last that its function's own instances could give; see reconcile.
	Short time.Time
}

// Revision is a revision's record and how its starts went.
type Revision struct {
	Record *functions.Revision
	// Request is what placement is asked for an instance of it; the nodes of its own and of other functions' instances are not in it.
	Request placement.Request
	// Failures counts starts that failed in a row. No start is tried before Retry.
	Failures int
	Retry    time.Time
	// Failed is when the last of them failed, Why its reason.
	Failed time.Time
	Why    string
	// Crashes counts instances in a row that ended by themselves soon after they were ready, Crashed is when the last one did; CrashRetry
	// is when one may be started that nobody waits for.
	Crashes    int
	Crashed    time.Time
	CrashRetry time.Time
	// Started is when an instance of it was last commanded to start.
	Started time.Time
	// ColdStart is what a start takes from the command to readiness, the later ones counting more; zero where none was measured.
	ColdStart time.Duration
	// Making is how room was made for an instance of it last, Made when that was tried.
	Making string
	Made   time.Time
}

// Measure takes note of how long an instance took that is ready now and whose start was commanded here.
func (r *Revision) Measure(in *Instance) {
	if in.First.IsZero() {
		return
	}
	took := max(in.ReadyAt.Sub(in.First), time.Millisecond)
	if r.ColdStart == 0 {
		r.ColdStart = took
		return
	}
	r.ColdStart += (took - r.ColdStart) / 4
}

func newFunction(r functions.Ref) *Function {
	return &Function{
		Ref:       r,
		Revisions: map[functions.RevisionID]*Revision{},
		Instances: map[functions.InstanceID]*Instance{},
		Load:      map[string]Load{},
	}
}

// Revision returns the revision with the id; nil where its record is not known.
func (f *Function) Revision(id functions.RevisionID) *Revision {
	r := f.Revisions[id]
	if r == nil || r.Record == nil {
		return nil
	}
	return r
}

// request returns what placement is asked for an instance of a revision, the zero Request where its record is not known.
func (f *Function) request(id functions.RevisionID) placement.Request {
	if r := f.Revisions[id]; r != nil {
		return r.Request
	}
	return placement.Request{}
}

// Request returns what placement is asked for an instance of a function's revision now.
func (s *State) Request(f *Function, rev *Revision) placement.Request {
	r := rev.Request
	if r.Spread != 0 {
		r.Peers = s.hosts(r.Peers, f)
	}
	if rev.Record == nil {
		return r
	}
	for _, name := range rev.Record.Config.Placement.Near {
		r.Near = s.meant(r.Near, f, name)
	}
	for _, name := range rev.Record.Config.Placement.Apart {
		r.Apart = s.meant(r.Apart, f, name)
	}
	return r
}

// hosts adds the nodes of a function's instances, in the order of the instances' ids; f may be nil.
func (s *State) hosts(to []placement.NodeRef, f *Function) []placement.NodeRef {
	if f == nil {
		return to
	}
	for _, in := range f.Ordered() {
		if n := s.Nodes[in.Node]; n != nil && in.Active() {
			to = append(to, n.Ref)
		}
	}
	return to
}

// Count returns how many instances of a revision are active, and how many of those are ready. Instances on nodes that are leaving do not
// count: gone is a function of the node.
func (f *Function) Count(id functions.RevisionID, gone func(functions.NodeID) bool) (active, ready int) {
	for _, in := range f.Instances {
		if in.Revision != id || !in.Active() || gone(in.Node) {
			continue
		}
		active++
		if in.State.Serves() {
			ready++
		}
	}
	return active, ready
}

// Resting reports whether time alone changes nothing for the function: it was looked at, has no instance and needs none, and no plan for one.
func (f *Function) Resting() bool {
	if f.Record == nil || f.Record.Candidate != "" || len(f.Instances) > 0 || f.Desired > 0 || f.Reason == "" || f.Pending != "" || f.Plan != nil {
		return false
	}
	waiting, backlog, inFlight := f.Level()
	return waiting+backlog+inFlight == 0 && f.Writing.IsZero() && f.Revision(f.Record.Live) != nil
}

// Ordered returns the function's instances by id.
func (f *Function) Ordered() []*Instance {
	if len(f.Instances) == 0 {
		return nil
	}
	out := make([]*Instance, 0, len(f.Instances))
	for _, in := range f.Instances {
		if out = append(out, in); len(f.Instances) == 1 {
			return out
		}
	}
	slices.SortFunc(out, func(a, b *Instance) int { return cmp.Compare(a.Instance, b.Instance) })
	return out
}

// Level sums what the gateways state.
func (f *Function) Level() (waiting, backlog, inFlight int) {
	for _, l := range f.Load {
		waiting += l.Waiting
		backlog += l.Backlog
		inFlight += l.InFlight
	}
	return waiting, backlog, inFlight
}

// SetFunction records a function.
func (s *State) SetFunction(now time.Time, rec functions.Function) {
	f := s.function(rec.Ref())
	if f.Record == nil || f.Record.Live != rec.Live {
		f.LiveSince = now
	}
	f.Record = &rec
	f.Writing = time.Time{}
	if f.Deploy.Revision != rec.Candidate {
		f.Deploy = Deploy{Revision: rec.Candidate, Since: now}
	}
	s.relabel(f)
}

// DeleteFunction records that a function is no more.
func (s *State) DeleteFunction(r functions.Ref) {
	f := s.Functions[r]
	if f == nil {
		return
	}
	f.Record, f.Deploy, f.Writing = nil, Deploy{}, time.Time{}
	s.relabel(f)
	clear(f.Load)
	s.forget(f)
}

// SetRevision records a revision, its zero settings replaced by their defaults.
func (s *State) SetRevision(rec functions.Revision) {
	rec.Config = rec.Config.WithDefaults()
	f := s.function(rec.Ref())
	r := f.Revisions[rec.ID]
	if r == nil {
		r = &Revision{}
		f.Revisions[rec.ID] = r
	}
	r.Record = &rec
	r.Request = placement.Request{
		Resources: rec.Config.Limits.Resources(), Architecture: rec.Artifact.Architecture, Digest: rec.Artifact.Digest, Namespace: rec.Namespace,
		Needs: rec.Config.Features(), Affinity: s.affinity(rec.Config.Placement), Spread: spreadOf(rec.Config.Placement),
	}
	s.relabel(f)
}

// DeleteRevision records that a revision is no more.
func (s *State) DeleteRevision(r functions.Ref, id functions.RevisionID) {
	f := s.Functions[r]
	if f == nil {
		return
	}
	delete(f.Revisions, id)
	s.relabel(f)
	s.forget(f)
}
