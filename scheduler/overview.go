package scheduler

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/scheduler/state"
)

// overview copies the state for the outside; whose it is the caller adds.
func overview(now time.Time, st *state.State) bus.Overview {
	o := bus.Overview{
		Schema: bus.Schema, At: now,
		Nodes: []bus.NodeStatus{}, Instances: []bus.InstanceStatus{}, Functions: []bus.FunctionStatus{}, Namespaces: []bus.NamespaceStatus{},
	}
	for _, n := range st.NodeOrder() {
		o.Nodes = append(o.Nodes, nodeStatus(st, n))
	}
	count := map[string]int{}
	for _, f := range st.Functions {
		if f.Record == nil && len(f.Instances) == 0 {
			continue
		}
		if count[f.Namespace] += 0; f.Record != nil {
			count[f.Namespace]++
		}
		o.Functions = append(o.Functions, functionStatus(f))
		for _, in := range f.Instances {
			o.Instances = append(o.Instances, bus.InstanceStatus{InstanceReport: in.InstanceReport, Node: in.Node, Placement: in.Placement()})
		}
	}
	o.Instances = append(o.Instances, st.Ended...)
	slices.SortFunc(o.Functions, func(a, b bus.FunctionStatus) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Function, b.Function))
	})
	slices.SortFunc(o.Instances, func(a, b bus.InstanceStatus) int { return cmp.Compare(a.Instance, b.Instance) })
	o.Namespaces = namespaces(st, count)
	all := 0
	for _, n := range count {
		all += n
	}
	total := namespace(st, functions.QuotaTotal, all)
	o.Total = &total
	return o
}

func functionStatus(f *state.Function) bus.FunctionStatus {
	s := bus.FunctionStatus{
		Namespace: f.Namespace, Function: f.Name, Desired: f.Desired, Reason: f.Reason, Pending: f.Pending,
		ColdStarts: f.ColdStarts, StartFailures: f.StartFailures,
	}
	for _, in := range f.Instances {
		switch {
		case in.State == functions.InstanceDraining || !in.DrainSent.IsZero():
			s.Draining++
		case in.State == functions.InstanceStarting:
			s.Starting++
		case in.State.Serves():
			s.Ready++
			if in.State == functions.InstanceFrozen {
				s.Frozen++
			}
		}
	}
	return s
}

func namespaces(st *state.State, count map[string]int) []bus.NamespaceStatus {
	names := map[string]struct{}{}
	for n := range count {
		names[n] = struct{}{}
	}
	for n := range st.Quotas {
		if n != functions.QuotaDefaults && n != functions.QuotaTotal {
			names[n] = struct{}{}
		}
	}
	out := make([]bus.NamespaceStatus, 0, len(names))
	for _, n := range slices.Sorted(maps.Keys(names)) {
		out = append(out, namespace(st, n, count[n]))
	}
	return out
}

func namespace(st *state.State, name string, fns int) bus.NamespaceStatus {
	b := st.Budget(name)
	b.Quota.Namespace = name
	s := bus.NamespaceStatus{Namespace: name, Used: b.Used, Functions: fns, Effective: &b.Quota}
	if q, ok := st.Quotas[name]; ok {
		s.Quota = &q
	}
	return s
}
