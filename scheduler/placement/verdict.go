package placement

import (
	"fmt"
	"strings"

	"github.com/tatami-faas/tatami/functions"
)

// Cause says why a node was or was not chosen.
type Cause uint8

// The causes, in the order in which they are checked.
const (
	Chosen Cause = iota
	// Fits: the node had room, and another one was chosen.
	Fits
	Lost
	Unknown
	Draining
	Cordoned
	Architecture
	// Lacking: the node does not have a feature that the request needs.
	Lacking
	// Labels: the node lacks labels that the request must have, or has ones that it must not.
	Labels
	CPU
	Memory
	Instances
)

// Verdict is what a decision found about one node.
type Verdict struct {
	Node  functions.NodeID
	Name  string
	Cause Cause
	// Never says that the node could not hold the instance even if it were empty and open.
	Never bool
	// Score is the mean share of the node's CPU and memory that is taken with the instance on it; 0 where it does not fit.
	Score float64

	need, free, total functions.Resources
	arch              [2]string
	lacking           []string
	unmet             []Term
}

// judge says what keeps a request from a node with so much free, Fits if nothing does. Unmet are the required terms that its labels do not meet.
func judge(n *Node, free functions.Resources, r *Request, unmet []Term) Verdict {
	need := demand(r)
	v := Verdict{Node: n.ID, Name: n.Name, need: need, free: free, total: n.Allocatable, unmet: unmet}
	arch := compatible(n.Architecture, r.Architecture)
	v.lacking = missing(r.Needs, n.Lacks)
	v.Never = len(unmet) > 0 || len(v.lacking) > 0 || !arch || !need.Fits(n.Allocatable)
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
	case len(v.lacking) > 0:
		v.Cause = Lacking
	case len(unmet) > 0:
		v.Cause = Labels
	case need.CPU > free.CPU:
		v.Cause = CPU
	case need.Memory > free.Memory:
		v.Cause = Memory
	case need.Instances > free.Instances:
		v.Cause = Instances
	default:
		v.Cause, v.Score = Fits, score(weightOf(n.Allocatable).of(free.CPU-need.CPU, free.Memory-need.Memory))
	}
	return v
}

// Reason writes the verdict for people.
func (v *Verdict) Reason() string {
	switch v.Cause {
	case Chosen:
		return fmt.Sprintf("chosen: %.0f%% taken with it", 100*v.Score)
	case Fits:
		return fmt.Sprintf("fits: %.0f%% taken with it", 100*v.Score)
	case Lost:
		return "not heard of"
	case Unknown:
		return "has not yet reported what runs on it"
	case Draining:
		return "draining"
	case Cordoned:
		return "cordoned"
	case Architecture:
		return fmt.Sprintf("architecture %s, the artifact needs %s", v.arch[1], v.arch[0])
	case Lacking:
		return "lacks " + strings.Join(v.lacking, "; ")
	case Labels:
		return "without the labels wanted: " + writeTerms(v.unmet)
	case CPU:
		return v.short("cpu", v.need.CPU, v.free.CPU, v.total.CPU, millicores)
	case Memory:
		return v.short("memory", v.need.Memory, v.free.Memory, v.total.Memory, mebibytes)
	case Instances:
		return fmt.Sprintf("no instance slot free of %d", v.total.Instances)
	}
	return ""
}

func (v *Verdict) short(what string, need, free, total int64, write func(int64) string) string {
	if need > total {
		return fmt.Sprintf("not enough %s: %s needed, %s on the whole node", what, write(need), write(total))
	}
	return fmt.Sprintf("not enough %s: %s needed, %s free of %s", what, write(need), write(max(free, 0)), write(total))
}
