package fakenomad

import (
	"slices"
	"strings"

	"github.com/hashicorp/nomad/api"
)

// find looks for a node for an allocation of a group: that which has the fewest, among those that take it. Without one it says why, as Nomad does.
func (c *Cluster) find(j *api.Job, g *api.TaskGroup) (best *node, why *api.AllocationMetric) {
	why = &api.AllocationMetric{ConstraintFiltered: map[string]int{}, DimensionExhausted: map[string]int{}}
	least := 0
	for _, n := range c.nodes {
		if !n.takes() {
			continue
		}
		why.NodesEvaluated++
		on := c.on(n)
		if broken := breaks(n, on, j, g); broken != "" {
			why.NodesFiltered++
			why.ConstraintFiltered[broken]++
			continue
		}
		if lacking := lacks(on, g); lacking != "" {
			why.NodesExhausted++
			why.DimensionExhausted[lacking]++
			continue
		}
		if best == nil || len(on) < least {
			best, least = n, len(on)
		}
	}
	return best, why
}

// on lists what takes a node's room.
func (c *Cluster) on(n *node) (out []*alloc) {
	for _, a := range c.allocs {
		if a.NodeID == n.ID && !a.terminal() {
			out = append(out, a)
		}
	}
	return out
}

// breaks is the constraint that keeps a group from a node; of constraints one allocation on each node is known, and equality with a key of its meta.
func breaks(n *node, on []*alloc, j *api.Job, g *api.TaskGroup) string {
	mine := slices.ContainsFunc(on, func(a *alloc) bool { return a.JobID == *j.ID && a.wanted() })
	for _, k := range slices.Concat(j.Constraints, g.Constraints) {
		key, meta := strings.CutPrefix(k.LTarget, "${meta.")
		switch {
		case k.Operand == api.ConstraintDistinctHosts && mine:
			return k.Operand
		case meta && k.Operand == "=" && n.Meta[strings.TrimSuffix(key, "}")] != k.RTarget:
			return k.LTarget + " = " + k.RTarget
		}
	}
	return ""
}

// lacks is what there would be too little of for one more of a group.
func lacks(on []*alloc, g *api.TaskGroup) string {
	cpu, cores, memory := needs(g)
	for _, a := range on {
		theirCPU, theirCores, theirMemory := needs(a.group)
		cpu, cores, memory = cpu+theirCPU, cores+theirCores, memory+theirMemory
	}
	switch {
	case cores > nodeCores:
		return "cores"
	case cpu > nodeCompute:
		return "cpu"
	case memory > nodeMemory:
		return "memory"
	}
	return ""
}

// needs is what a group's tasks take together. What runs after the others may take their room, but for whole processors: these are set apart.
func needs(g *api.TaskGroup) (cpu, cores, memory int) {
	apart, cpuAfter, memoryAfter := 0, 0, 0
	for _, t := range g.Tasks {
		share, after := *t.Resources.CPU, t.Lifecycle != nil && t.Lifecycle.Hook == api.TaskLifecycleHookPoststop
		if n := t.Resources.Cores; n != nil && *n > 0 {
			cores += *n
			apart += *n * nodeCompute / nodeCores
			share = 0
		}
		if after {
			cpuAfter, memoryAfter = cpuAfter+share, memoryAfter+*t.Resources.MemoryMB
		} else {
			cpu, memory = cpu+share, memory+*t.Resources.MemoryMB
		}
	}
	return apart + max(cpu, cpuAfter), cores, max(memory, memoryAfter)
}
