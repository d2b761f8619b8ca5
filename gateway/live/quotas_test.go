package live

import (
	"testing"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
)

// A namespace shows once something bounds it, with what the gateway counts beside what the scheduler reserved; the total is about all.
func TestQuotas(t *testing.T) {
	t.Parallel()
	used := functions.Resources{CPU: 100, Memory: 10, Instances: 1}
	p := &picture{Snapshot: Snapshot{Functions: []Function{
		{Namespace: "a", Function: "f", InFlight: 2, RPS: 1.5}, {Namespace: "a", Function: "g", InFlight: 1}, {Namespace: "b", Function: "f", InFlight: 4, RPS: 1},
	}}}
	quota := func(namespace string, q functions.Quota) *functions.Quota {
		q.Namespace = namespace
		q = q.Over(functions.Quota{})
		return &q
	}
	total := bus.NamespaceStatus{Namespace: functions.QuotaTotal, Effective: quota(functions.QuotaTotal, functions.Quota{Instances: 9})}
	p.quotas(bus.Overview{Total: &total, Namespaces: []bus.NamespaceStatus{
		{Namespace: "c", Used: used, Functions: 1, Effective: quota("c", functions.Quota{})},
		{Namespace: "b", Used: used, Functions: 1},
		{Namespace: "a", Used: used, Functions: 2, Effective: quota("a", functions.Quota{Concurrent: 5})},
	}})
	all := functions.Resources{CPU: 300, Memory: 30, Instances: 3}
	want := []Namespace{
		{Namespace: functions.QuotaTotal, Used: all, Functions: 4, Concurrent: 7, Rate: 2.5, Quota: *quota(functions.QuotaTotal, functions.Quota{Instances: 9})},
		{Namespace: "a", Used: used, Functions: 2, Concurrent: 3, Rate: 1.5, Quota: *quota("a", functions.Quota{Concurrent: 5})},
	}
	if len(p.Namespaces) != len(want) || p.Namespaces[0] != want[0] || p.Namespaces[1] != want[1] {
		t.Errorf("got  %+v\nwant %+v", p.Namespaces, want)
	}
}
