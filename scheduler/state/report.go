package state

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/scheduler/placement"
)

// Change is what a reducer found that a decision may follow from.
type Change struct {
	// Functions are those with an instance that changed; may name one more than once.
	Functions []functions.Ref
	// Freed says that room became free: a node came, or an instance went.
	Freed bool
	// ReportsWanted says that reports were missed, or a full one is due: the worker should be asked.
	ReportsWanted bool
	// Gone lists the instances that ended, as they were last known.
	Gone []Departure
	// Ready lists the instances that became ready.
	Ready []*Instance
	// Foreign lists the instances of other nodes that the report spoke of: nothing of that was taken.
	Foreign []functions.InstanceID
}

// Departure is an instance that is no more.
type Departure struct {
	Instance
	// Before is the state it was in before.
	Before functions.InstanceState
	// Lost says that no report told of the end: the node fell silent, or no longer names the instance.
	Lost bool
}

func (c *Change) gone(in Instance, before functions.InstanceState, lost bool) {
	c.Functions = append(c.Functions, in.Ref())
	c.Gone = append(c.Gone, Departure{Instance: in, Before: before, Lost: lost})
	c.Freed = true
}

// ApplyReport records what a worker says of its node. A report seen before changes nothing.
func (s *State) ApplyReport(now time.Time, r bus.Report) Change {
	var c Change
	id := r.Node
	if id == "" || s.settings[id].Intent == functions.NodeRemoved {
		return c
	}
	n := s.Nodes[id]
	if n == nil {
		n = s.addNode(id)
	}
	missed := r.Sequence != n.Sequence+1
	switch {
	case n.Boot != r.Boot:
		// Another run of the worker: what is on the node is known again when it has said so in full.
		n.Known, missed = false, true
	case r.Sequence <= n.Sequence:
		return c
	case missed && !r.Full:
		c.ReportsWanted = true
	}
	var came []string
	if r.State.ArtifactsKept {
		came, r.State.Artifacts = r.State.Artifacts, n.Report.Artifacts
		n.Unlisted = n.Unlisted || missed
		c.ReportsWanted = c.ReportsWanted || n.Unlisted
	} else {
		n.Unlisted = false
	}
	n.Boot, n.Sequence, n.LastSeen, n.Missed = r.Boot, r.Sequence, now, 0
	before := n.Node
	stays := n.describe(r.State)
	n.Lost = false
	if r.Full {
		n.Known = true
	} else if !n.Known {
		c.ReportsWanted = true
	}
	if !stays || n.Known != before.Known || n.Lost != before.Lost {
		s.place(n)
	}
	s.unpacked(n, came)
	if placeable(&n.Node) && (!placeable(&before) || before.Allocatable != n.Allocatable || !maps.Equal(before.Lacks, n.Lacks)) {
		c.Freed = true
	}
	if n.Draining != before.Draining {
		for _, in := range n.Instances {
			c.Functions = append(c.Functions, in.Ref())
		}
	}
	for i := range r.Instances {
		s.applyInstance(now, n, &r.Instances[i], &c)
	}
	if r.Full {
		named := make(map[functions.InstanceID]struct{}, len(r.Instances))
		for i := range r.Instances {
			named[r.Instances[i].Instance] = struct{}{}
		}
		s.dropUnnamed(n, named, &c)
	}
	if r.State.Departed {
		// A command that was on its way has found nobody.
		s.lose(n, fmt.Sprintf("node %s has left", n.Name), &c)
	}
	return c
}

// unpacked adds artifacts to those that a node has.
func (s *State) unpacked(n *Node, digests []string) {
	for _, d := range digests {
		if _, has := n.Artifacts[d]; has {
			continue
		}
		if n.Artifacts == nil {
			n.Artifacts = map[string]struct{}{}
		}
		n.Artifacts[d] = struct{}{}
		n.Report.Artifacts = append(n.Report.Artifacts, d)
		s.engine.Hold(n.Ref, d)
	}
}

func placeable(n *placement.Node) bool { return n.Known && !n.Lost && !n.Draining }

// describe takes over what the worker says of the node, and reports whether all of it that placement reads is as before.
func (n *Node) describe(st bus.NodeState) (stays bool) {
	last := &n.Report
	stays = last.Name == st.Name && last.Architecture == st.Architecture && last.Allocatable == st.Allocatable && last.Draining == st.Draining &&
		maps.Equal(last.Labels, st.Labels) && maps.Equal(last.Lacks, st.Lacks) && slices.Equal(last.Artifacts, st.Artifacts)
	n.Report = st
	if stays {
		return true
	}
	n.Name, n.Architecture = cmp.Or(st.Name, string(n.ID)), st.Architecture
	n.Allocatable, n.Labels, n.Zone, n.Lacks = st.Allocatable, st.Labels, st.Labels[functions.LabelZone], st.Lacks
	n.restrict()
	n.Artifacts = make(map[string]struct{}, len(st.Artifacts))
	for _, a := range st.Artifacts {
		n.Artifacts[a] = struct{}{}
	}
	return false
}

func (s *State) applyInstance(now time.Time, n *Node, ir *bus.InstanceReport, c *Change) {
	in := s.Instances[ir.Instance]
	if in != nil && in.Node != n.ID {
		// A worker speaks for its own node only. What is known of the instance stays until the worker of its node says otherwise, or is lost.
		c.Foreign = append(c.Foreign, ir.Instance)
		return
	}
	if ir.State.Gone() {
		if in == nil {
			return
		}
		before := in.State
		was := *in
		was.State, was.Reason, was.Exit, was.Unavailable, was.Logs = ir.State, ir.Reason, ir.Exit, ir.Unavailable, ir.Logs
		s.Remove(ir.Instance)
		c.gone(was, before, false)
		return
	}
	if in == nil {
		c.Functions = append(c.Functions, ir.Ref())
		in = s.adopt(n, &Instance{InstanceReport: *ir, Node: n.ID, Confirmed: true, Reported: now})
		if in.State.Serves() {
			in.ReadyAt = ir.Since
			c.Ready = append(c.Ready, in)
		}
		return
	}
	became := ir.State.Serves() && !in.State.Serves()
	if ir.Reserved == (functions.Resources{}) {
		ir.Reserved = in.Reserved
	}
	if ir.Reserved != in.Reserved {
		s.engine.Adjust(in.Reservation, ir.Reserved)
		_, ir.Reserved = s.engine.Held(in.Reservation)
	}
	if ir.Held > 0 || ir.LastUsed.After(in.LastUsed) {
		in.Uses++
		in.Clock = s.Clock
	}
	if s.news(in, ir) {
		c.Functions = append(c.Functions, ir.Ref())
	}
	in.InstanceReport = *ir
	in.Confirmed, in.Reported = true, now
	// A stop that was refused, because a slot was held, leaves the instance as it was.
	if ir.State.Serves() && !in.Stopping.IsZero() && (ir.Held > 0 || now.Sub(in.Stopping) > stopAnswer) {
		in.Stopping = time.Time{}
	}
	if became {
		in.ReadyAt = now
		c.Ready = append(c.Ready, in)
	}
}

// news reports whether a decision may follow from what is reported of an instance: most of a full report was said before.
func (s *State) news(in *Instance, ir *bus.InstanceReport) bool {
	f := s.Functions[in.Ref()]
	return !in.Confirmed || !in.Stopping.IsZero() || !in.DrainSent.IsZero() || ir.State != in.State || ir.Held != in.Held ||
		ir.LastUsed.Sub(in.LastUsed).Abs() > time.Millisecond || ir.Reserved != in.Reserved || ir.Revision != in.Revision || f == nil || !in.Reported.After(f.LastDemand)
}

// stopAnswer is how long a worker may take to act on a stop; a report later than that tells that it was refused.
const stopAnswer = 500 * time.Millisecond

// dropUnnamed removes what a full report does not name. An instance whose start no report has confirmed stays: the command may be on its way.
func (s *State) dropUnnamed(n *Node, named map[functions.InstanceID]struct{}, c *Change) {
	unnamed := make([]functions.InstanceID, 0, max(len(n.Instances)-len(named), 0))
	for id := range n.Instances {
		if _, ok := named[id]; !ok {
			unnamed = append(unnamed, id)
		}
	}
	slices.Sort(unnamed)
	for _, id := range unnamed {
		in := n.Instances[id]
		if !in.Confirmed {
			continue
		}
		before, was := in.State, *in
		was.State, was.Reason = functions.InstanceStopped, "its worker no longer knows it"
		s.Remove(id)
		c.gone(was, before, true)
	}
}

// Expire drops what is too old to hold: the demand of silent gateways, and nodes that were lost long ago.
func (s *State) Expire(now time.Time) Change {
	var c Change
	c.Functions = append(c.Functions, s.expireDemand(now)...)
	var forgotten []*Node
	for _, n := range s.order {
		if n.Lost && now.Sub(n.LastSeen) >= NodeForgotten {
			forgotten = append(forgotten, n)
		}
	}
	for _, n := range forgotten {
		s.forgetNode(n)
	}
	return c
}

// Beat says that the scheduler has listened up to now, and drops the instances of nodes that were silent for MissedBeats of these. While the
// scheduler itself, or what brings it the reports, stands still there is no beat, so that nobody is lost by that.
func (s *State) Beat(now time.Time) Change {
	var c Change
	for _, n := range s.order {
		if n.Lost {
			continue
		}
		if n.Missed++; n.Missed >= MissedBeats {
			s.lose(n, fmt.Sprintf("node %s is lost: not heard of for %s", n.Name, now.Sub(n.LastSeen).Round(100*time.Millisecond)), &c)
		}
	}
	return c
}

func (s *State) lose(n *Node, why string, c *Change) {
	n.Lost, n.Known = true, false
	s.place(n)
	for _, id := range slices.Sorted(maps.Keys(n.Instances)) {
		in := n.Instances[id]
		before, was := in.State, *in
		was.State, was.Reason = functions.InstanceStopped, why
		s.Remove(id)
		c.gone(was, before, true)
	}
}

// Excuse pushes the last sign of life of every node to now: the scheduler itself did not run for a while and could not hear them.
func (s *State) Excuse(now time.Time) {
	for _, n := range s.Nodes {
		if !n.Lost {
			n.LastSeen, n.Missed = now, 0
		}
	}
	for _, g := range s.gateways {
		g.last = now
	}
}
