package placement

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tatami-faas/tatami/functions"
)

// Tries lists what would let the request in, commands first; nothing for one that is placed.
func (x *Explanation) Tries() []string {
	if x.Choice.Placed() {
		return nil
	}
	var out []string
	if x.closed != "" {
		out = append(out, fmt.Sprintf("tatami node resume %s: it is cordoned and has room", x.closed))
	}
	if x.quota != nil {
		return append(out, x.quota.Help(), "tatami quota show "+x.quota.budget.Namespace)
	}
	if x.leaving != "" {
		out = append(out, fmt.Sprintf("tatami node resume %s: it is being emptied and would have room", x.leaving))
	}
	if x.away != "" {
		out = append(out, fmt.Sprintf("tatami node show %s: it is not heard of and would have room; on it: systemctl status tatami-worker", x.away))
	}
	out = append(out, x.lessOf()...)
	if x.closed == "" {
		out = append(out, x.Help())
	}
	return append(out, x.suited()...)
}

// lessOf says what the function could ask less of, where one dimension alone is short.
func (x *Explanation) lessOf() (out []string) {
	need := x.Need()
	var free functions.Resources
	slots := false
	for i := range x.Kinds {
		f := x.Kinds[i].Free
		if need.CPU <= f.CPU && need.Instances <= f.Instances {
			free.Memory = max(free.Memory, f.Memory)
		}
		if need.Memory <= f.Memory && need.Instances <= f.Instances {
			free.CPU = max(free.CPU, f.CPU)
		}
		slots = slots || x.Kinds[i].Causes[Instances] > 0
	}
	if free.Memory >= functions.MiB && free.Memory < need.Memory {
		out = append(out, fmt.Sprintf("lower memory and ephemeral of the function to %s together, which are free", mebibytes(free.Memory)))
	}
	if free.CPU > 0 && free.CPU < need.CPU {
		out = append(out, fmt.Sprintf("lower cpu of the function to %s, which are free", millicores(free.CPU)))
	}
	if slots {
		out = append(out, "start a node's worker with a larger --max-instances: it has cpu and memory for another one")
	}
	return out
}

// suited says what keeps the request from nodes however empty they are, but for their size: features, labels and architecture.
func (x *Explanation) suited() (out []string) {
	var other []string
	lacks := false
	for i := range x.Kinds {
		k := &x.Kinds[i]
		if k.Causes[Architecture] > 0 {
			other = append(other, k.Architecture)
		}
		if k.Causes[Lacking] > 0 {
			lacks = true
		}
		if k.Causes[Labels] == 0 {
			continue
		}
		for _, t := range k.Unmet {
			s := fmt.Sprintf("start the worker of a node with --label %s=%s, or take %[1]s out of placement.require", t.Key, orAny(t.Value))
			if t.Not {
				s = fmt.Sprintf("add a node without the label %s, or take it out of placement.avoid", t.Key)
			}
			if !slices.Contains(out, s) {
				out = append(out, s)
			}
		}
	}
	if lacks {
		out = append(out, "tatami doctor on a node that lacks it says what to install; or "+without(x.request.Needs))
	}
	if len(other) > 0 {
		slices.Sort(other)
		out = append(out, fmt.Sprintf("add a node of architecture %s, or deploy it built for %s", x.request.Architecture, strings.Join(slices.Compact(other), " or ")))
	}
	return out
}

// without says how a function does without features.
func without(needs []functions.Feature) string {
	var out []string
	for _, f := range needs {
		switch f {
		case functions.FeatureGVisor:
			out = append(out, "sandbox: "+functions.SandboxContainer)
		case functions.FeatureEgress:
			out = append(out, "egress: "+functions.EgressNone)
		}
	}
	return "deploy it with " + strings.Join(out, " and ")
}

func orAny(value string) string {
	if value == "" {
		return "VALUE"
	}
	return value
}

// Help says what would let the request in; it is empty for one that is placed.
func (x *Explanation) Help() string {
	switch {
	case x.Choice.Placed():
		return ""
	case x.quota != nil:
		return x.quota.Help()
	case len(x.Kinds) == 0:
		return "add a node"
	case x.closed != "":
		return fmt.Sprintf("open node %s, which is cordoned and has room", x.closed)
	}
	for i := range x.Kinds {
		if !x.Kinds[i].Never {
			return "wait for instances to end, or add a node"
		}
	}
	return "ask for less or other labels, or add a node that is large enough: no node could take it even if empty"
}
