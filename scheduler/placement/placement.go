package placement

import (
	"fmt"
	"strings"

	"github.com/tatami-faas/tatami/functions"
)

// Node is a node as placement sees it.
type Node struct {
	ID           functions.NodeID
	Name         string
	Architecture string
	// Allocatable is what may be given away, Reserved what placed instances hold.
	Allocatable functions.Resources
	Reserved    functions.Resources
	// Known says that the node's instances are known: before its first full report nothing is placed on it.
	Known    bool
	Lost     bool
	Draining bool
	Cordoned bool
	// Artifacts holds the digests that the node has unpacked.
	Artifacts map[string]struct{}
	// Zone is the part of the site that fails together; empty where there are none. Labels are the operator's.
	Zone   string
	Labels map[string]string
}

// Free is what the node can still give.
func (n *Node) Free() functions.Resources { return n.Allocatable.Sub(n.Reserved) }

// Budget is a namespace's quota and what its instances hold of it. A zero Quota bounds nothing.
type Budget struct {
	Namespace string
	Quota     functions.Quota
	Used      functions.Resources
}

// Request is an instance to be placed.
type Request struct {
	Resources    functions.Resources
	Architecture string
	// Digest is the artifact's: a node that holds it is preferred among equals.
	Digest string

	// What follows only an Engine reads.

	// Namespace is the one whose quota the instance counts against.
	Namespace string
	// Affinity says which labels nodes must or should have; nil is any.
	Affinity *Affinity
	// Spread keeps the function's instances apart: the peers are the nodes that host one, each as often as it does.
	Spread Spread
	Peers  []NodeRef
}

// Cause says why a node was or was not chosen.
type Cause uint8

// The causes, in the order in which they are checked.
const (
	Chosen Cause = iota
	// Fits: the node had room, and a tighter one was chosen.
	Fits
	Lost
	Unknown
	Draining
	Cordoned
	Architecture
	CPU
	Memory
	Instances
	// QuotaFirst: the node was not looked at because the namespace's quota refused.
	QuotaFirst
	// Labels: the node lacks labels that the request must have, or has ones that it must not. Only an Engine finds it.
	Labels
)

// Verdict is what the decision found about one node.
type Verdict struct {
	Node  functions.NodeID
	Name  string
	Cause Cause
	// Never says that the node could not hold the instance even if it were empty.
	Never bool
	// Score is the mean of allocated shares with the instance on the node; 0 where it does not fit.
	Score float64
	// Holds says that the node has the artifact.
	Holds bool
	need  functions.Resources
	free  functions.Resources
	total functions.Resources
	arch  [2]string
}

// Decision is the outcome of Place.
type Decision struct {
	// Node is empty when the instance could not be placed.
	Node functions.NodeID
	// Score is the chosen node's.
	Score float64
	// Quota names the bound of the quota that refused: "cpu", "memory" or "instances"; empty when the quota allows the instance.
	Quota string
	// Never says that the refusal stands whatever else ends: the quota, or every node even when empty, is too small.
	Never bool
	// Verdicts has an entry for every node, in the order of the nodes given.
	Verdicts []Verdict
	budget   Budget
	request  Request
}

// Placed reports whether a node was found.
func (d *Decision) Placed() bool { return d.Node != "" }

// Place chooses a node for the request. The nodes should be ordered by id: the first of equals is taken.
func Place(nodes []*Node, b Budget, r Request) Decision {
	d := Decision{budget: b, request: r, Verdicts: make([]Verdict, len(nodes))}
	d.Quota = b.Quota.Exceeded(b.Used, r.Resources)
	if d.Quota != "" {
		d.Never = b.Quota.Exceeded(functions.Resources{}, r.Resources) != ""
		for i, n := range nodes {
			d.Verdicts[i] = Verdict{Node: n.ID, Name: n.Name, Cause: QuotaFirst}
		}
		return d
	}
	best := -1
	d.Never = len(nodes) > 0
	for i, n := range nodes {
		v := judge(n, r)
		d.Verdicts[i] = v
		d.Never = d.Never && v.Never
		if v.Cause != Fits {
			continue
		}
		if best < 0 || better(&d.Verdicts[i], &d.Verdicts[best]) {
			best = i
		}
	}
	if best >= 0 {
		d.Verdicts[best].Cause = Chosen
		d.Node, d.Score = d.Verdicts[best].Node, d.Verdicts[best].Score
	}
	return d
}

// Usable reports whether a node takes instances of the architecture at all, leaving its room aside.
func Usable(n *Node, architecture string) bool {
	return n.Known && !n.Lost && !n.Draining && !n.Cordoned && compatible(n.Architecture, architecture)
}

func better(a, b *Verdict) bool {
	if a.Score != b.Score {
		return a.Score > b.Score
	}
	if a.Holds != b.Holds {
		return a.Holds
	}
	return a.Node < b.Node
}

func judge(n *Node, r Request) Verdict {
	free := n.Free()
	v := Verdict{Node: n.ID, Name: n.Name, need: r.Resources, free: free, total: n.Allocatable}
	_, v.Holds = n.Artifacts[r.Digest]
	arch := compatible(n.Architecture, r.Architecture)
	v.Never = n.Known && !n.Lost && (!arch || !r.Resources.Fits(n.Allocatable))
	switch {
	case n.Lost:
		v.Cause = Lost
	case !n.Known:
		v.Cause = Unknown
	case n.Draining:
		v.Cause = Draining
	case n.Cordoned:
		v.Cause = Cordoned
	case !arch:
		v.Cause, v.arch = Architecture, [2]string{r.Architecture, n.Architecture}
	case r.Resources.CPU > free.CPU:
		v.Cause = CPU
	case r.Resources.Memory > free.Memory:
		v.Cause = Memory
	case r.Resources.Instances > free.Instances:
		v.Cause = Instances
	default:
		v.Cause = Fits
		v.Score = Score(n.Allocatable, n.Reserved.Add(r.Resources))
	}
	return v
}

func compatible(node, image string) bool { return node == "" || image == "" || node == image }

// Score is the mean of the allocated shares of a node with the given reservation, over the resources it offers.
func Score(allocatable, reserved functions.Resources) float64 {
	var sum float64
	var n int
	add := func(part, whole int64) {
		if whole > 0 {
			sum += float64(part) / float64(whole)
			n++
		}
	}
	add(reserved.CPU, allocatable.CPU)
	add(reserved.Memory, allocatable.Memory)
	add(reserved.Instances, allocatable.Instances)
	if n == 0 {
		return 0
	}
	return sum / float64(n)
}

// Reason writes the verdict for people.
func (v *Verdict) Reason() string {
	switch v.Cause {
	case Chosen:
		s := fmt.Sprintf("chosen: the tightest fit, %.0f%% taken with it", 100*v.Score)
		if v.Holds {
			s += ", holds the artifact"
		}
		return s
	case Fits:
		return fmt.Sprintf("fits, but less tightly: %.0f%% taken with it", 100*v.Score)
	case Lost:
		return "not heard of"
	case Unknown:
		return "has not yet reported what runs on it"
	case Draining:
		return "draining: its worker is stopping"
	case Cordoned:
		return "cordoned"
	case Architecture:
		return fmt.Sprintf("architecture %s, the artifact needs %s", v.arch[1], v.arch[0])
	case CPU:
		return v.short("cpu", v.need.CPU, v.free.CPU, v.total.CPU, millicores)
	case Memory:
		return v.short("memory", v.need.Memory, v.free.Memory, v.total.Memory, mebibytes)
	case Instances:
		return fmt.Sprintf("no instance slot free of %d", v.total.Instances)
	case QuotaFirst:
		return "not looked at: the namespace's quota refuses"
	}
	return ""
}

func (v *Verdict) short(what string, need, free, total int64, write func(int64) string) string {
	if need > total {
		return fmt.Sprintf("not enough %s: %s needed, %s on the whole node", what, write(need), write(total))
	}
	return fmt.Sprintf("not enough %s: %s needed, %s free of %s", what, write(need), write(max(free, 0)), write(total))
}

// Reason writes the decision for people: where the instance goes and why, or what refused it.
func (d *Decision) Reason() string {
	switch {
	case d.Quota != "":
		return d.quotaReason()
	case d.Placed():
		return d.chosenReason()
	case len(d.Verdicts) == 0:
		return "no node is known"
	}
	const shown = 3
	parts := make([]string, 0, shown+1)
	for i := range d.Verdicts[:min(shown, len(d.Verdicts))] {
		parts = append(parts, d.Verdicts[i].Name+" "+d.Verdicts[i].Reason())
	}
	if more := len(d.Verdicts) - shown; more > 0 {
		parts = append(parts, fmt.Sprintf("and %d more", more))
	}
	return "no node has room: " + strings.Join(parts, "; ")
}

func (d *Decision) chosenReason() string {
	fits := 0
	for i := range d.Verdicts {
		if v := &d.Verdicts[i]; v.Cause == Chosen || v.Cause == Fits {
			fits++
		}
	}
	for i := range d.Verdicts {
		if v := &d.Verdicts[i]; v.Cause == Chosen {
			s := fmt.Sprintf("%s is the tightest of %d that fit: %.0f%% taken with it", v.Name, fits, 100*v.Score)
			if fits == 1 {
				s = fmt.Sprintf("%s is the only node that fits: %.0f%% taken with it", v.Name, 100*v.Score)
			}
			if v.Holds {
				s += ", holds the artifact"
			}
			return s
		}
	}
	return ""
}

func (d *Decision) quotaReason() string {
	need, used := d.request.Resources, d.budget.Used
	var what string
	switch d.Quota {
	case "cpu":
		what = fmt.Sprintf("%s needed, %s of %s used", millicores(need.CPU), millicores(used.CPU), millicores(d.budget.Quota.CPU))
	case "memory":
		what = fmt.Sprintf("%s needed, %s of %s used", mebibytes(need.Memory), mebibytes(used.Memory), mebibytes(d.budget.Quota.Memory))
	default:
		what = fmt.Sprintf("%d of %d used", used.Instances, d.budget.Quota.Instances)
	}
	return fmt.Sprintf("quota of namespace %s: %s: %s", d.budget.Namespace, d.Quota, what)
}

func millicores(v int64) string { return fmt.Sprintf("%dm", v) }

func mebibytes(v int64) string {
	if v%functions.GiB == 0 && v != 0 {
		return fmt.Sprintf("%d GiB", v/functions.GiB)
	}
	return fmt.Sprintf("%d MiB", v/functions.MiB)
}
