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
		"c-draining": "draining: its worker is stopping",
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
	for name, tc := range map[string]struct {
		quota functions.Quota
		used  functions.Resources
		bound string
		never bool
		want  string
	}{
		"none":      {used: res(1e6, 1e6, 1e6)},
		"cpu":       {quota: functions.Quota{CPU: 300}, used: res(200, 0, 1), bound: "cpu", want: "quota of namespace team: cpu: 200m needed, 200m of 300m used"},
		"memory":    {quota: functions.Quota{Memory: 64 * functions.MiB}, used: res(0, 0, 1), bound: "memory", never: true, want: "quota of namespace team: memory: 128 MiB needed, 0 MiB of 64 MiB used"},
		"instances": {quota: functions.Quota{Instances: 2}, used: res(0, 0, 2), bound: "instances", want: "quota of namespace team: instances: 2 of 2 used"},
		"fits":      {quota: functions.Quota{CPU: 400, Memory: functions.GiB, Instances: 3}, used: res(200, 100, 2)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := engineOf(node("a", nil), node("elsewhere", func(n *placement.Node) { n.Cordoned = true }))
			tc.quota.Namespace = "team"
			e.SetQuota(tc.quota)
			e.Adopt(e.Ref("elsewhere"), &placement.Request{Resources: tc.used, Namespace: "team"})
			req := placement.Request{Resources: res(200, 128, 1), Namespace: "team"}
			c := e.Place(&req)
			if c.Quota != tc.bound || c.Placed() != (tc.bound == "") {
				t.Fatalf("quota %q, placed %t", c.Quota, c.Placed())
			}
			if c.Placed() {
				return
			}
			if f := e.Refusal(&req, c); f.Never != tc.never || f.Reason() != tc.want || f.Quota != tc.bound {
				t.Errorf("never %t, reason %q, want %q", f.Never, f.Reason(), tc.want)
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
