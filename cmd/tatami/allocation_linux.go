package main

import (
	"maps"
	"strconv"
	"strings"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/internal/heap"
	"github.com/tatami-faas/tatami/scheduler/nomad"
)

// allocation is what Nomad gave to the task that this process is.
type allocation struct {
	id string
	// grant is in millicores and bytes: for this process and all that it runs.
	grant functions.Resources
	// meta is what of the meta of Nomad's node is to be labels.
	meta map[string]string
}

// readAllocation reads what Nomad says in a task's environment; nil outside of one. Processors is how many the machine has.
func readAllocation(getenv func(string) string, processors int) (*allocation, error) {
	a := &allocation{id: getenv("NOMAD_ALLOC_ID"), meta: nomad.ReadMeta(getenv(nomad.EnvMeta))}
	if a.id == "" {
		return nil, nil
	}
	megabytes, err := strconv.ParseInt(getenv("NOMAD_MEMORY_LIMIT"), 10, 64)
	if err != nil || megabytes <= 0 || megabytes > 1<<30 {
		return nil, fault.New(fault.CodeInvalidRequest, "NOMAD_MEMORY_LIMIT: %.40q is no number of MiB", getenv("NOMAD_MEMORY_LIMIT"))
	}
	a.grant.Memory = megabytes * functions.MiB
	if list := strings.TrimSpace(getenv("NOMAD_CPU_CORES")); list != "" {
		n, err := countCores(list)
		a.grant.CPU = int64(n) * 1000
		return a, err
	}
	limit, err := strconv.ParseInt(getenv("NOMAD_CPU_LIMIT"), 10, 64)
	if err != nil || limit <= 0 || limit > 1<<30 {
		return nil, fault.New(fault.CodeInvalidRequest, "NOMAD_CPU_LIMIT: %.40q is no number of MHz", getenv("NOMAD_CPU_LIMIT"))
	}
	all, err := strconv.ParseInt(getenv(nomad.EnvCompute), 10, 64)
	if err != nil || all < limit {
		return nil, fault.New(fault.CodeInvalidRequest, "%s: %.40q is not what the machine has, of which the task has %d MHz", nomad.EnvCompute, getenv(nomad.EnvCompute), limit).
			WithHint(`reserve whole processors with cores = 2 in the job's resources, or say what they are with env { %s = "${attr.cpu.totalcompute}" }`, nomad.EnvCompute)
	}
	a.grant.CPU = max(1, limit*int64(processors)*1000/all)
	return a, nil
}

// mostCores bounds how many processors a list may name.
const mostCores = 4096

// countCores counts the processors of a list such as 0-3,8.
func countCores(list string) (n int, err error) {
	bad := fault.New(fault.CodeInvalidRequest, "NOMAD_CPU_CORES: %.80q is no list of processors", list)
	for part := range strings.SplitSeq(list, ",") {
		from, to, ranged := strings.Cut(part, "-")
		if !ranged {
			to = from
		}
		first, err := strconv.ParseUint(from, 10, 16)
		if err != nil {
			return 0, bad
		}
		last, err := strconv.ParseUint(to, 10, 16)
		if err != nil || last < first || last >= mostCores {
			return 0, bad
		}
		n += int(last-first) + 1
	}
	if n > mostCores {
		return 0, bad
	}
	return n, nil
}

// grantOf has the worker take what the allocation has for what the machine has, and say which allocation it is.
func (c *nodeConfig) grantOf(a *allocation) {
	c.Capacity = a.grant
	if c.HeapTarget == 0 {
		c.HeapTarget = heap.Target(a.grant.Memory)
	}
	// What is said on the command line goes before what the node says of itself.
	labels := map[string]string{functions.LabelMember: a.id}
	maps.Copy(labels, a.meta)
	maps.Copy(labels, c.Labels)
	c.Labels = labels
}
