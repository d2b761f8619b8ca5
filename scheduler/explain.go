package scheduler

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/scheduler/placement"
	"github.com/tatami-faas/tatami/scheduler/state"
)

// explain answers why a function or an instance is as it is.
func explain(now time.Time, st *state.State, req bus.ExplainRequest) bus.Explanation {
	if req.Function != nil {
		return explainFunction(now, st, *req.Function)
	}
	return explainInstance(now, st, req.Instance)
}

func explainFunction(now time.Time, st *state.State, ref functions.Ref) bus.Explanation {
	e := bus.Explanation{Schema: bus.Schema, Subject: "function " + ref.String(), Lines: []bus.ExplanationLine{}}
	f := st.Functions[ref]
	if f == nil || f.Record == nil && len(f.Instances) == 0 {
		return e
	}
	e.Found = true
	s := functionStatus(f)
	say(&e, now, "%d wanted: %s; %d ready, %d starting, %d draining", s.Desired, s.Reason, s.Ready, s.Starting, s.Draining)
	if f.Plan != nil {
		say(&e, now, "keep-alive: %s", f.Plan)
	}
	if f.Pending != "" {
		say(&e, now, "waiting: %s", f.Pending)
	}
	tell(&e, f, "")
	x := tryPlacement(st, f)
	if x != nil {
		explainKinds(&e, now, x)
		for i := range x.Nodes {
			v := &x.Nodes[i]
			e.Nodes = append(e.Nodes, bus.NodeVerdict{Node: v.Node, Name: v.Name, Chosen: v.Cause == placement.Chosen, Reason: v.Reason()})
		}
	}
	e.Try = helps(st, f, x)
	return e
}

// explainKinds says where another instance would go, or what keeps it from each kind of nodes.
func explainKinds(e *bus.Explanation, now time.Time, x *placement.Explanation) {
	reason := x.Reason()
	if !x.Choice.Placed() && x.Choice.Quota.Name == "" && len(x.Kinds) > 0 {
		reason = "no node has room"
	}
	say(e, now, "another instance: %s", reason)
	if x.Choice.Quota.Name != "" {
		return
	}
	for i := range x.Kinds {
		k := &x.Kinds[i]
		e.Kinds = append(e.Kinds, bus.KindVerdict{Kind: k.String(), Nodes: k.Nodes, Fits: k.Causes[placement.Fits], Reason: k.Reason(x.Need())})
	}
}

// tryPlacement tells where an instance would go now, without placing one; nil where there is no revision to place.
func tryPlacement(st *state.State, f *state.Function) *placement.Explanation {
	if f.Record == nil {
		return nil
	}
	rev := f.Revision(cmp.Or(f.Record.Candidate, f.Record.Live, f.Sought))
	if rev == nil {
		return nil
	}
	r := st.Request(f, rev)
	x := st.Engine().Explain(&r)
	return &x
}

// helps lists what would help a function that lacks instances, or whose instances fail.
func helps(st *state.State, f *state.Function, x *placement.Explanation) []string {
	var out []string
	if x != nil && !x.Choice.Placed() {
		out = append(out, x.Tries()...)
		never := !slices.ContainsFunc(x.Kinds, func(k placement.KindVerdict) bool { return !k.Never })
		if idle, held := idleOthers(st, f); idle > 0 && !never {
			out = append(out, fmt.Sprintf("tatami inst ls: %s of others hold %s, and give way when they may", counted(idle, "idle instance"), held))
		}
	}
	if most, at := atCeiling(f); at {
		out = append(out, fmt.Sprintf("raise scale.max of the function, which is %d, or its concurrency", most))
	}
	if f.StartFailures > 0 {
		out = append(out, "tatami logs "+f.String())
	}
	return out
}

// atCeiling reports whether invocations wait although the function has as many instances as it may.
func atCeiling(f *state.Function) (most int, at bool) {
	if f.Record == nil {
		return 0, false
	}
	live := f.Revision(f.Record.Live)
	if live == nil {
		return 0, false
	}
	waiting, backlog, _ := f.Level()
	most = live.Record.Config.Scale.Max
	return most, waiting+backlog > 0 && f.Desired >= most
}

// idleOthers counts what runs nothing of other functions, and what it holds.
func idleOthers(st *state.State, f *state.Function) (n int, held functions.Resources) {
	for _, in := range st.Instances {
		if in.Ref() != f.Ref && in.Active() && in.Held == 0 && in.State.Serves() {
			n++
			held = held.Add(in.Reserved)
		}
	}
	return n, held
}

func explainInstance(now time.Time, st *state.State, id functions.InstanceID) bus.Explanation {
	e := bus.Explanation{Schema: bus.Schema, Subject: "instance " + string(id), Lines: []bus.ExplanationLine{}}
	in := st.Instances[id]
	if in == nil {
		for _, f := range st.Functions {
			if tell(&e, f, id); len(e.Lines) > 0 {
				e.Found = true
				return e
			}
		}
		return e
	}
	e.Found = true
	text := string(in.State)
	if in.Reason != "" {
		text += ": " + in.Reason
	}
	name := string(in.Node)
	n := st.Nodes[in.Node]
	if n != nil {
		name = n.Name
	}
	say(&e, now, "%s since %s, on node %s, of revision %s of %s", text, in.Since.UTC().Format(time.RFC3339), name, in.Revision, in.Ref())
	say(&e, now, "placed there: %s", in.Placement())
	if f := st.Functions[in.Ref()]; f != nil {
		tell(&e, f, id)
	}
	e.Nodes = []bus.NodeVerdict{{Node: in.Node, Name: name, Chosen: true, Reason: in.Placement()}}
	e.Try = []string{"tatami explain " + in.Ref().String(), "tatami logs " + in.Ref().String()}
	return e
}

func say(e *bus.Explanation, at time.Time, format string, args ...any) {
	e.Lines = append(e.Lines, bus.ExplanationLine{At: at, Text: fmt.Sprintf(format, args...)})
}

// tell adds what happened, the latest first.
func tell(e *bus.Explanation, f *state.Function, id functions.InstanceID) {
	for _, ev := range f.Events.Latest(id) {
		text := ev.Text
		if id == "" && ev.Instance != "" {
			text = string(ev.Instance) + " " + text
		}
		e.Lines = append(e.Lines, bus.ExplanationLine{At: ev.At, Text: text})
	}
}
