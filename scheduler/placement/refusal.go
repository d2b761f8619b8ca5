package placement

import (
	"fmt"
	"strings"

	"github.com/tatami-faas/tatami/functions"
)

// Refusal is why a request found no place, in short. Its cost grows with the kinds of nodes, not with the nodes: Explain says more.
type Refusal struct {
	// Quota is the quota's refusal; nil when it was for want of room.
	Quota *QuotaRefusal
	// Never says that the refusal stands whatever else ends: the quota, or every node even when empty, is too small.
	Never bool

	need functions.Resources
	// Of all nodes so many take nothing, lack a feature that is needed, do not suit, are too small even when empty, and are too full.
	nodes, closed, lacking, unfit, small, full int
	needs                                      []functions.Feature
	// each has a verdict on each node where there are few.
	each []Verdict
}

// nodesNamed is up to how many nodes a refusal names them.
const nodesNamed = 3

// Refusal says why a request was not placed. The choice is what Place or Reserve returned for it just now.
func (e *Engine) Refusal(r *Request, c Choice) Refusal {
	f := Refusal{need: demand(r), nodes: len(e.byID), needs: r.Needs}
	if c.Quota.Name != "" {
		f.Quota = e.quotaRefusal(c.Quota, r)
		f.Never = f.Quota.never()
		return f
	}
	q := e.ask(r)
	f.Never = f.nodes > 0 && e.unheard == 0
	for _, i := range e.ranked {
		c := &e.classes[i]
		f.closed += int(c.members - c.open)
		_, admitted := e.admits(c)
		switch {
		case q.needs&c.key.lacks != 0:
			f.lacking += int(c.open)
		case !admitted:
			f.unfit += int(c.open)
		case q.cpu > c.largestCPU || q.memory > c.largestMemory || q.slots > c.largestSlots:
			f.small += int(c.open)
		default:
			f.full += int(c.open)
			f.Never = false
		}
	}
	if f.nodes > nodesNamed {
		return f
	}
	for _, i := range e.sorted {
		n := &e.about[i].Node
		f.each = append(f.each, judge(n, e.Free(NodeRef(i)), r, r.Affinity.unmet(n.Labels)))
	}
	return f
}

// Reason writes the refusal for people.
func (f *Refusal) Reason() string {
	switch {
	case f.Quota != nil:
		return f.Quota.Reason() + "; try " + f.Quota.Help()
	case f.nodes == 0:
		return "no node is known"
	}
	var parts []string
	for i := range f.each {
		parts = append(parts, f.each[i].Name+" "+f.each[i].Reason())
	}
	if len(parts) > 0 {
		return "no node has room: " + strings.Join(parts, "; ")
	}
	add := func(n int, what string) {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, what))
		}
	}
	add(f.full, "too full")
	add(f.small, "too small")
	add(f.unfit, "of another architecture or without its labels")
	add(f.lacking, "lacking "+writeFeatures(f.needs))
	add(f.closed, "closed")
	return fmt.Sprintf("no node has room for %s and %s (of %d: %s)", millicores(f.need.CPU), mebibytes(f.need.Memory), f.nodes, strings.Join(parts, ", "))
}
