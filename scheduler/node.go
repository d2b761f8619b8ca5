package scheduler

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/scheduler/state"
)

func nodeStatus(st *state.State, n *state.Node) bus.NodeStatus {
	intent, why := n.Intent()
	out := bus.NodeStatus{
		ID: n.ID, NodeState: n.Report, Reserved: st.Reserved(n), Cordoned: n.Cordoned, LastSeen: n.LastSeen, Intent: intent, IntentReason: why,
	}
	if n.Drained() {
		out.Drain = drainStatus(st, n)
	}
	return out
}

// drainStatus says how far a node's drain is, and what each function's instances that are left wait for.
func drainStatus(st *state.State, n *state.Node) *bus.NodeDrain {
	type group struct {
		stay, drain, held int
		last              time.Time
	}
	groups := map[functions.Ref]*group{}
	var refs []functions.Ref
	for _, in := range n.Instances {
		g := groups[in.Ref()]
		if g == nil {
			g = &group{}
			groups[in.Ref()] = g
			refs = append(refs, in.Ref())
		}
		if in.Active() {
			g.stay++
			continue
		}
		g.drain++
		g.held += in.Held
		if in.Deadline.After(g.last) {
			g.last = in.Deadline
		}
	}
	slices.SortFunc(refs, func(a, b functions.Ref) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	out := &bus.NodeDrain{From: max(n.DrainedFrom, len(n.Instances)), Left: len(n.Instances), Waits: []string{}}
	for _, ref := range refs {
		g := groups[ref]
		if g.drain > 0 {
			s := fmt.Sprintf("%s of %s: ending", instances(g.drain), ref)
			if g.held > 0 {
				s = fmt.Sprintf("%s of %s: waits for %s, until %s at most", instances(g.drain), ref, counted(g.held, "invocation"), g.last.UTC().Format(time.RFC3339))
			}
			out.Waits = append(out.Waits, s)
		}
		if g.stay > 0 {
			why := "for replacements elsewhere to be ready"
			if f := st.Functions[ref]; f != nil && f.Pending != "" {
				why = "for room elsewhere: " + f.Pending
			}
			out.Waits = append(out.Waits, fmt.Sprintf("%s of %s: waits %s", instances(g.stay), ref, why))
		}
	}
	return out
}

func instances(n int) string { return counted(n, "instance") }

func counted(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
