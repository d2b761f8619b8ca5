package placement

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tatami-faas/tatami/functions"
)

// Kind describes nodes that are alike: their architecture, zone, labels, capacity and what they lack.
type Kind struct {
	Architecture, Zone string
	Labels             map[string]string
	Allocatable        functions.Resources
	Lacks              map[functions.Feature]string
}

// KindVerdict is what a request finds among the nodes of a kind.
type KindVerdict struct {
	Kind
	// Nodes counts them, and Causes by what keeps the request from them. Those with room count under Fits.
	Nodes  int
	Causes map[Cause]int
	// Free is the most that a node of the kind which takes instances has free, each dimension on its own; Name is one of the nodes.
	Free functions.Resources
	Name string
	// Never says that no node of the kind could hold the instance even if it were empty and open.
	Never bool
	// Unmet are the required label terms that the kind does not meet.
	Unmet []Term
	// Missing are the features that the request needs and the kind lacks, each with the reason.
	Missing []string
}

// nodesShown is of how many nodes an explanation speaks one by one.
const nodesShown = 32

// Explanation says why a request goes where it goes, or nowhere, by kinds of nodes.
type Explanation struct {
	Choice Choice
	Kinds  []KindVerdict
	// Nodes has a verdict on each of the first nodes by id, up to 32, and on the one chosen.
	Nodes   []Verdict
	quota   *QuotaRefusal
	request Request
	chosen  string
	// closed names a node that is cordoned and would have room, leaving one that is draining, away one that is not heard of; empty when there is none.
	closed, leaving, away string
}

// Explain judges every node for a request, and reserves nothing. It is for people: its cost grows with the number of nodes.
func (e *Engine) Explain(r *Request) Explanation {
	x := Explanation{Choice: e.Place(r), request: *r}
	if x.Choice.Quota.Name != "" {
		x.quota = e.quotaRefusal(x.Choice.Quota, r)
	}
	x.request.Resources = demand(r)
	at := map[string]int{}
	for _, i := range e.sorted {
		n := &e.about[i].Node
		key := fmt.Sprint(n.Architecture, "\x00", n.Zone, "\x00", n.Labels, n.Allocatable, n.Lacks)
		k, ok := at[key]
		if !ok {
			k = len(x.Kinds)
			at[key] = k
			x.Kinds = append(x.Kinds, KindVerdict{
				Kind: Kind{n.Architecture, n.Zone, maps.Clone(n.Labels), n.Allocatable, maps.Clone(n.Lacks)}, Causes: map[Cause]int{}, Name: n.Name,
				Unmet: r.Affinity.unmet(n.Labels), Missing: missing(r.Needs, n.Lacks),
			})
		}
		x.add(&x.Kinds[k], n, e.Free(NodeRef(i)), NodeRef(i) == x.Choice.Node)
	}
	slices.SortStableFunc(x.Kinds, func(a, b KindVerdict) int {
		return cmp.Or(cmp.Compare(b.Causes[Fits], a.Causes[Fits]), cmp.Compare(b.Nodes, a.Nodes))
	})
	return x
}

func (x *Explanation) add(k *KindVerdict, n *Node, free functions.Resources, chosen bool) {
	v := judge(n, free, &x.request, k.Unmet)
	k.Nodes++
	k.Causes[v.Cause]++
	k.Never = v.Never
	switch v.Cause {
	case Fits, CPU, Memory, Instances:
		k.Free = functions.Resources{CPU: max(k.Free.CPU, free.CPU), Memory: max(k.Free.Memory, free.Memory), Instances: max(k.Free.Instances, free.Instances)}
	case Cordoned, Draining, Lost:
		name := map[Cause]*string{Cordoned: &x.closed, Draining: &x.leaving, Lost: &x.away}[v.Cause]
		if !v.Never && *name == "" && v.need.Fits(free) {
			*name = n.Name
		}
	}
	if chosen {
		x.chosen, v.Cause = n.Name, Chosen
	}
	if chosen || len(x.Nodes) < nodesShown {
		x.Nodes = append(x.Nodes, v)
	}
}

func (a *Affinity) unmet(labels map[string]string) []Term {
	if a == nil {
		return nil
	}
	var out []Term
	for _, t := range a.terms {
		if !t.Preferred && !t.met(labels) {
			out = append(out, t)
		}
	}
	return out
}

// String writes the kind for people.
func (k *Kind) String() string {
	s := fmt.Sprintf("%s cpu, %s", millicores(k.Allocatable.CPU), mebibytes(k.Allocatable.Memory))
	if k.Architecture != "" {
		s += ", " + k.Architecture
	}
	if k.Zone != "" {
		s += ", zone " + k.Zone
	}
	for _, key := range slices.Sorted(maps.Keys(k.Labels)) {
		if key == functions.LabelZone && k.Labels[key] == k.Zone {
			continue
		}
		s += fmt.Sprintf(", %s=%s", key, k.Labels[key])
	}
	if len(k.Lacks) > 0 {
		s += ", without " + writeFeatures(slices.Sorted(maps.Keys(k.Lacks)))
	}
	return s
}

// Reason writes the verdict for people.
func (v *KindVerdict) Reason(need functions.Resources) string {
	var parts []string
	for _, c := range slices.Sorted(maps.Keys(v.Causes)) {
		n := v.Causes[c]
		switch c {
		case Fits:
			parts = append(parts, fmt.Sprintf("%d with room", n))
		case CPU:
			parts = append(parts, fmt.Sprintf("%d short of cpu (%s needed, at most %s free)", n, millicores(need.CPU), millicores(v.Free.CPU)))
		case Memory:
			parts = append(parts, fmt.Sprintf("%d short of memory (%s needed, at most %s free)", n, mebibytes(need.Memory), mebibytes(v.Free.Memory)))
		case Instances:
			parts = append(parts, fmt.Sprintf("%d without a free instance slot", n))
		case Architecture:
			parts = append(parts, fmt.Sprintf("%d of another architecture", n))
		case Lacking:
			parts = append(parts, fmt.Sprintf("%d lacking %s", n, strings.Join(v.Missing, "; ")))
		case Labels:
			parts = append(parts, fmt.Sprintf("%d without the labels wanted: %s", n, writeTerms(v.Unmet)))
		case Lost:
			parts = append(parts, fmt.Sprintf("%d not heard of", n))
		case Unknown:
			parts = append(parts, fmt.Sprintf("%d yet to report", n))
		case Draining:
			parts = append(parts, fmt.Sprintf("%d draining", n))
		case Cordoned:
			parts = append(parts, fmt.Sprintf("%d cordoned", n))
		}
	}
	return strings.Join(parts, ", ")
}

func writeTerms(terms []Term) string {
	var parts []string
	for _, t := range terms {
		s := t.Key
		if t.Value != "" {
			s += "=" + strings.Join(append([]string{t.Value}, t.Or...), " or ")
		}
		if t.Not {
			s = "not " + s
		}
		parts = append(parts, s)
	}
	return strings.Join(parts, ", ")
}

// Reason writes the whole for people: the choice, or what refused it kind by kind.
func (x *Explanation) Reason() string {
	if x.quota != nil {
		return x.quota.Reason()
	}
	if len(x.Kinds) == 0 {
		return "no node is known"
	}
	if x.Choice.Placed() {
		fits := 0
		for i := range x.Kinds {
			fits += x.Kinds[i].Causes[Fits]
		}
		return fmt.Sprintf("%s of %d with room: %s", x.chosen, fits, x.Choice.Reason())
	}
	const shown = 4
	var parts []string
	for i := range x.Kinds[:min(shown, len(x.Kinds))] {
		k := &x.Kinds[i]
		parts = append(parts, fmt.Sprintf("%d × (%s): %s", k.Nodes, k.String(), k.Reason(x.Need())))
	}
	if more := len(x.Kinds) - shown; more > 0 {
		parts = append(parts, fmt.Sprintf("and %d more kinds", more))
	}
	return "no node has room: " + strings.Join(parts, "; ")
}

// Need is what is asked for.
func (x *Explanation) Need() functions.Resources { return x.request.Resources }
