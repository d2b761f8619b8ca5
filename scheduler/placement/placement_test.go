package placement_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/scheduler/placement"
)

func res(cpu, mib, slots int64) functions.Resources {
	return functions.Resources{CPU: cpu, Memory: mib * functions.MiB, Instances: slots}
}

func node(id string, change func(*placement.Node)) *placement.Node {
	n := &placement.Node{ID: functions.NodeID(id), Name: id, Architecture: "amd64", Allocatable: res(1000, 1024, 10), Known: true}
	if change != nil {
		change(n)
	}
	return n
}

func take(e *placement.Engine, id functions.NodeID, amount functions.Resources) placement.Reservation {
	return e.Adopt(e.Ref(id), &placement.Request{Resources: amount})
}

func TestEveryNodeGetsAVerdict(t *testing.T) {
	t.Parallel()
	e := engineOf(
		node("a-lost", func(n *placement.Node) { n.Lost = true }),
		node("b-new", func(n *placement.Node) { n.Known = false }),
		node("c-draining", func(n *placement.Node) { n.Draining = true }),
		node("d-cordoned", func(n *placement.Node) { n.Cordoned = true }),
		node("e-arm", func(n *placement.Node) { n.Architecture = "arm64" }),
		node("f-cpu", nil), node("g-mem", nil), node("h-slots", nil), node("i-loose", nil), node("j-tight", nil),
		node("k-small", func(n *placement.Node) { n.Allocatable = res(1000, 64, 10) }),
		node("l-bare", func(n *placement.Node) { n.Labels = map[string]string{"disk": "hdd"} }),
	)
	take(e, "f-cpu", res(900, 0, 1))
	take(e, "g-mem", res(0, 1000, 1))
	take(e, "h-slots", res(0, 0, 10))
	take(e, "j-tight", res(500, 512, 1))
	r := placement.Request{Resources: res(200, 128, 1), Architecture: "amd64", Affinity: e.Affinity(placement.Term{Key: "disk", Value: "hdd", Not: true})}
	x := e.Explain(&r)
	got := map[string]string{}
	for i := range x.Nodes {
		got[x.Nodes[i].Name] = x.Nodes[i].Reason()
	}
	want := map[string]string{
		"a-lost":     "not heard of",
		"b-new":      "has not yet reported what runs on it",
		"c-draining": "draining",
		"d-cordoned": "cordoned",
		"e-arm":      "architecture arm64, the artifact needs amd64",
		"f-cpu":      "not enough cpu: 200m needed, 100m free of 1000m",
		"g-mem":      "not enough memory: 128 MiB needed, 24 MiB free of 1 GiB",
		"h-slots":    "no instance slot free of 10",
		"i-loose":    "fits: 16% taken with it",
		"j-tight":    "chosen: 66% taken with it",
		"k-small":    "not enough memory: 128 MiB needed, 64 MiB on the whole node",
		"l-bare":     "without the labels wanted: not disk=hdd",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("verdicts (-want +got):\n%s", diff)
	}
	if c := x.Choice; c.ID != "j-tight" || x.Reason() != "j-tight of 2 with room: the tightest that fits, 66% taken with it" {
		t.Errorf("chose %q: %s", c.ID, x.Reason())
	}
	take(e, "i-loose", res(1, 0, 1))
	r.Resources = res(1000, 128, 1)
	f := e.Refusal(&r, e.Place(&r))
	if want := "no node has room for 1000m and 128 MiB (of 12: 5 too full, 1 too small, 2 of another architecture or without its labels, 4 closed)"; f.Reason() != want {
		t.Errorf("refusal %q, want %q", f.Reason(), want)
	}
}

func TestQuotaRefusalIsNamed(t *testing.T) {
	t.Parallel()
	const mib = functions.MiB
	quota := func(of string, cpu, memory, instances int64) functions.Quota {
		return functions.Quota{Namespace: of, CPU: cpu, Memory: memory, Instances: instances}
	}
	for name, tc := range map[string]struct {
		quotas []functions.Quota
		used   functions.Resources
		bound  placement.Bound
		never  bool
		reason string
	}{
		"none":   {used: res(1e6, 1e6, 1e6)},
		"cpu":    {[]functions.Quota{quota("team", 300, 0, 0)}, res(200, 0, 1), placement.Bound{Name: "cpu", Of: "team"}, false, "quota of namespace team: cpu: 200m needed, 200m of 300m used; try tatami quota set team --cpu 400m"},
		"memory": {[]functions.Quota{quota("team", 0, 64*mib, 0)}, res(0, 0, 1), placement.Bound{Name: "memory", Of: "team"}, true, "quota of namespace team: memory: 128 MiB needed, 0 MiB of 64 MiB used; try tatami quota set team --memory 128Mi"},
		"instances": {
			[]functions.Quota{quota("team", 0, 0, 2)},
			res(0, 0, 2), placement.Bound{Name: "instances", Of: "team"}, false, "quota of namespace team: instances: 2 of 2 used; try tatami quota set team --instances 3",
		},
		"fits": {quotas: []functions.Quota{quota("team", 400, functions.GiB, 3)}, used: res(200, 100, 2)},
		"by default": {
			[]functions.Quota{quota("team", 0, 0, 9), quota(functions.QuotaDefaults, 300, 0, 1)},
			res(200, 0, 2), placement.Bound{Name: "cpu", Of: functions.QuotaDefaults}, false, "quota of namespace team, by default: cpu: 200m needed, 200m of 300m used; try tatami quota set team --cpu 400m",
		},
		"unbounded": {quotas: []functions.Quota{quota("team", functions.Unbounded, 0, 9), quota(functions.QuotaDefaults, 300, 0, 1)}, used: res(200, 0, 2)},
		"all together": {
			[]functions.Quota{quota("team", 400, 0, 0), quota(functions.QuotaTotal, 600, 0, 0)},
			res(200, 0, 2), placement.Bound{Name: "cpu", Of: functions.QuotaTotal}, false, "quota of all namespaces together: cpu: 200m needed, 500m of 600m used; try tatami quota set _total --cpu 700m",
		},
		"its own before all together": {
			[]functions.Quota{quota("team", 0, 0, 2), quota(functions.QuotaTotal, 100, 0, 0)},
			res(0, 0, 2), placement.Bound{Name: "instances", Of: "team"}, false, "quota of namespace team: instances: 2 of 2 used; try tatami quota set team --instances 3",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := engineOf(node("a", nil), node("elsewhere", func(n *placement.Node) { n.Cordoned = true }))
			for _, q := range tc.quotas {
				e.SetQuota(q)
			}
			e.Adopt(e.Ref("elsewhere"), &placement.Request{Resources: tc.used, Namespace: "team"})
			e.Adopt(e.Ref("elsewhere"), &placement.Request{Resources: res(300, 10, 1), Namespace: "other"})
			req := placement.Request{Resources: res(200, 128, 1), Namespace: "team"}
			c := e.Place(&req)
			if c.Quota != tc.bound || c.Placed() != (tc.bound.Name == "") {
				t.Fatalf("quota %+v, placed %t", c.Quota, c.Placed())
			}
			if c.Placed() {
				return
			}
			if f := e.Refusal(&req, c); f.Never != tc.never || f.Reason() != tc.reason {
				t.Errorf("never %t, reason %q, want %q", f.Never, f.Reason(), tc.reason)
			}
			for _, q := range tc.quotas {
				e.DeleteQuota(q.Namespace)
			}
			if c := e.Place(&req); !c.Placed() {
				t.Errorf("without quotas: %+v", c)
			}
		})
	}
}

func TestNeverMeansThatNoEndHelps(t *testing.T) {
	t.Parallel()
	full := node("full", nil)
	small := node("small", func(n *placement.Node) { n.Allocatable = res(100, 100, 1) })
	arm := node("arm", func(n *placement.Node) { n.Architecture = "arm64" })
	fresh := node("fresh", func(n *placement.Node) { n.Known = false })
	closed := node("closed", func(n *placement.Node) { n.Cordoned = true })
	few := node("few", func(n *placement.Node) { n.Allocatable.Instances = 1 })
	req := placement.Request{Resources: res(200, 128, 2), Architecture: "amd64"}
	for _, tc := range []struct {
		nodes []*placement.Node
		never bool
		why   string
	}{
		{nil, false, "no node is known"},
		{[]*placement.Node{full}, false, "no node has room: full not enough cpu: 200m needed, 0m free of 1000m"},
		{[]*placement.Node{small}, true, "no node has room: small not enough cpu: 200m needed, 100m on the whole node"},
		{[]*placement.Node{small, arm}, true, "no node has room: arm architecture arm64, the artifact needs amd64; small not enough cpu: 200m needed, 100m on the whole node"},
		{[]*placement.Node{small, full, arm, few}, false, "no node has room for 200m and 128 MiB (of 4: 2 too full, 1 too small, 1 of another architecture or without its labels)"},
		{[]*placement.Node{small, arm, few, node("arm2", func(n *placement.Node) { n.Architecture = "arm64" })}, true, "no node has room for 200m and 128 MiB (of 4: 2 too small, 2 of another architecture or without its labels)"},
		{[]*placement.Node{small, fresh}, false, "no node has room: fresh has not yet reported what runs on it; small not enough cpu: 200m needed, 100m on the whole node"},
		{[]*placement.Node{small, closed}, false, "no node has room: closed cordoned; small not enough cpu: 200m needed, 100m on the whole node"},
	} {
		e := engineOf(tc.nodes...)
		if e.Ref("full") != 0 {
			take(e, "full", res(1000, 1024, 10))
		}
		c := e.Place(&req)
		if f := e.Refusal(&req, c); c.Placed() || f.Never != tc.never || f.Reason() != tc.why {
			t.Errorf("%d nodes: placed %t, never %t: %s", len(tc.nodes), c.Placed(), f.Never, f.Reason())
		}
	}
}
