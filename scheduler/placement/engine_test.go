package placement_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/scheduler/placement"
)

func engineOf(nodes ...*placement.Node) *placement.Engine {
	e := placement.NewEngine()
	for _, n := range nodes {
		e.SetNode(n)
	}
	return e
}

func TestTheTightestOfAllSizes(t *testing.T) {
	t.Parallel()
	e := engineOf(
		node("a-empty", nil),
		node("b-large", func(n *placement.Node) { n.Allocatable = res(4000, 4096, 10) }),
		node("c-tight", nil),
	)
	held := e.Adopt(e.Ref("c-tight"), &placement.Request{Resources: res(700, 700, 1)})
	r := placement.Request{Resources: res(200, 200, 1)}
	if c := e.Place(&r); c.ID != "c-tight" || c.Score < 0.88 || c.Score > 0.9 {
		t.Errorf("chose %s, %.3f taken", c.ID, c.Score)
	}
	e.Release(held)
	if c := e.Place(&r); c.ID != "a-empty" {
		t.Errorf("of equals: chose %s", c.ID)
	}
	if c := e.Place(&placement.Request{Resources: res(2000, 200, 1)}); c.ID != "b-large" {
		t.Errorf("only one is large enough: chose %s", c.ID)
	}
}

func TestClosedNodesTakeNothing(t *testing.T) {
	t.Parallel()
	for name, close := range map[string]func(*placement.Node){
		"unknown":  func(n *placement.Node) { n.Known = false },
		"lost":     func(n *placement.Node) { n.Lost = true },
		"draining": func(n *placement.Node) { n.Draining = true },
		"cordoned": func(n *placement.Node) { n.Cordoned = true },
		"arm":      func(n *placement.Node) { n.Architecture = "arm64" },
		"lacking": func(n *placement.Node) {
			n.Lacks = map[functions.Feature]string{functions.FeatureGVisor: "not installed"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := placement.Request{Resources: res(200, 200, 1), Architecture: "amd64", Needs: []functions.Feature{functions.FeatureEgress, functions.FeatureGVisor}}
			e := engineOf(node("a", nil))
			if !e.Place(&r).Placed() {
				t.Fatal("the open node is not taken")
			}
			e.SetNode(node("a", close))
			if c := e.Place(&r); c.Placed() {
				t.Errorf("chose %s", c.ID)
			}
			x := e.Explain(&r)
			if x.Reason() == "" || x.Help() == "" {
				t.Errorf("reason %q, help %q", x.Reason(), x.Help())
			}
		})
	}
}

func TestAHomeIsTakenOnlyWhenNearlyAsTight(t *testing.T) {
	t.Parallel()
	r := placement.Request{Resources: res(100, 100, 1), Digest: "sha256:x"}
	for _, tc := range []struct {
		taken int64
		want  functions.NodeID
	}{{0, "b"}, {7, "b"}, {100, "a"}} {
		e := engineOf(node("a", nil), node("b", func(n *placement.Node) { n.Artifacts = map[string]struct{}{"sha256:x": {}} }))
		e.Adopt(e.Ref("a"), &placement.Request{Resources: res(tc.taken, 0, 1)})
		if c := e.Place(&r); c.ID != tc.want || c.Home != (tc.want == "b") {
			t.Errorf("%dm taken elsewhere: chose %s, home %t", tc.taken, c.ID, c.Home)
		}
	}
}

func TestSpreadGoesToTheFewestPeers(t *testing.T) {
	t.Parallel()
	var nodes []*placement.Node
	for i, zone := range []string{"x", "x", "x", "y", "y", "z"} {
		nodes = append(nodes, node(fmt.Sprintf("%s%d", zone, i), func(n *placement.Node) { n.Zone = zone }))
	}
	for _, tc := range []struct {
		spread placement.Spread
		want   string
	}{
		{0, "x0" + strings.Repeat(" x0", 5)},
		{placement.SpreadNodes, "x0 x1 x2 y3 y4 z5"},
		{placement.SpreadZones, "x0 y3 z5 x0 y3 z5"},
		{placement.SpreadZones | placement.SpreadNodes, "x0 y3 z5 x1 y4 z5"},
	} {
		e := engineOf(nodes...)
		r := placement.Request{Resources: res(100, 100, 1), Spread: tc.spread}
		var got []string
		for range 6 {
			c := e.Reserve(&r)
			r.Peers = append(r.Peers, c.Node)
			got = append(got, string(c.ID))
		}
		if s := strings.Join(got, " "); s != tc.want {
			t.Errorf("spread %d: %s, want %s", tc.spread, s, tc.want)
		}
	}
}

func TestLabelsExcludeAndWeigh(t *testing.T) {
	t.Parallel()
	e := engineOf(
		node("a", nil),
		node("b", func(n *placement.Node) { n.Labels = map[string]string{"disk": "nvme"} }),
		node("c", func(n *placement.Node) { n.Labels = map[string]string{"disk": "hdd", "gpu": "l4"} }),
	)
	e.Adopt(e.Ref("c"), &placement.Request{Resources: res(150, 150, 1)})
	for _, tc := range []struct {
		terms []placement.Term
		want  functions.NodeID
	}{
		{nil, "c"},
		{[]placement.Term{{Key: "disk", Value: "nvme"}}, "b"},
		{[]placement.Term{{Key: "disk", Not: true}}, "a"},
		{[]placement.Term{{Key: "gpu"}, {Key: "disk", Value: "nvme"}}, ""},
		{[]placement.Term{{Key: "gpu", Not: true, Preferred: true}}, "a"},
		{[]placement.Term{{Key: "disk", Value: "nvme", Preferred: true}, {Key: "zone", Preferred: true}}, "c"},
	} {
		r := placement.Request{Resources: res(100, 100, 1), Affinity: e.Affinity(tc.terms...)}
		if c := e.Place(&r); c.ID != tc.want {
			t.Errorf("%+v: chose %q, want %q", tc.terms, c.ID, tc.want)
		}
	}
	r := placement.Request{Resources: res(100, 100, 1), Affinity: e.Affinity(placement.Term{Key: "disk", Value: "ssd"})}
	x := e.Explain(&r)
	if !strings.Contains(x.Reason(), "1 without the labels wanted: disk=ssd") || !strings.Contains(x.Help(), "other labels") {
		t.Errorf("reason %q, help %q", x.Reason(), x.Help())
	}
}

func TestExplanationsNameEveryKind(t *testing.T) {
	t.Parallel()
	var nodes []*placement.Node
	for i := range 12 {
		nodes = append(nodes, node(fmt.Sprintf("n%02d", i), func(n *placement.Node) {
			n.Draining, n.Cordoned = i == 0, i == 1
			if i >= 10 {
				n.Allocatable, n.Zone = res(4000, 512, 10), "b"
			}
		}))
	}
	e := engineOf(nodes...)
	for _, n := range nodes[1:] {
		e.Adopt(e.Ref(n.ID), &placement.Request{Resources: res(850, 100, 1), Namespace: "team"})
	}
	r := placement.Request{Resources: res(300, 600, 1), Architecture: "amd64", Namespace: "team"}
	x := e.Explain(&r)
	const want = "no node has room: 10 × (1000m cpu, 1 GiB, amd64): 1 draining, 1 cordoned, 8 short of cpu (300m needed, at most 150m free); " +
		"2 × (4000m cpu, 512 MiB, amd64, zone b): 2 short of memory (600 MiB needed, at most 412 MiB free)"
	if x.Reason() != want {
		t.Errorf("reason\n%s\nwant\n%s", x.Reason(), want)
	}
	if got := x.Help(); got != "wait for instances to end, or add a node" {
		t.Errorf("help %q", got)
	}
	small := placement.Request{Resources: res(100, 600, 1), Namespace: "team"}
	if x := e.Explain(&small); x.Reason() != "n02 of 8 with room: the tightest that fits, 82% taken with it" || x.Help() != "" {
		t.Errorf("reason %q, help %q", x.Reason(), x.Help())
	}
	e.SetQuota(functions.Quota{Namespace: "team", CPU: 9_500})
	if x := e.Explain(&r); x.Choice.Quota.Name != "cpu" || !strings.Contains(x.Reason(), "9350m of 9500m used") || !strings.Contains(x.Help(), "tatami quota set team --cpu 9650m") {
		t.Errorf("reason %q, help %q", x.Reason(), x.Help())
	}
}

func TestAReservationEndsOnce(t *testing.T) {
	t.Parallel()
	e := engineOf(node("a", nil))
	r := placement.Request{Resources: res(1000, 100, 1), Namespace: "team"}
	first := e.Reserve(&r)
	if c := e.Reserve(&r); c.Placed() {
		t.Fatal("what is reserved was given away again")
	}
	if !e.Release(first.Reservation) || e.Release(first.Reservation) {
		t.Error("a reservation must end once")
	}
	second := e.Reserve(&r)
	if second.Reservation == first.Reservation || e.Release(first.Reservation) || e.Move(first.Reservation, second.Node) {
		t.Error("an ended reservation stands for another")
	}
	e.RemoveNode(second.Node)
	if e.Release(second.Reservation) || e.Budget("team").Used != (functions.Resources{}) {
		t.Errorf("the node is gone, %v is still used", e.Budget("team").Used)
	}
}

func TestCompactGivesNodesBack(t *testing.T) {
	t.Parallel()
	e := engineOf(node("a", nil), node("b", nil), node("c", nil), node("d", nil))
	for id, cpu := range map[functions.NodeID]int64{"a": 100, "b": 300, "c": 600} {
		for range 2 {
			e.Adopt(e.Ref(id), &placement.Request{Resources: res(cpu/2, 50, 1)})
		}
	}
	p := e.Compact(10, nil)
	if len(p.Freed) != 2 || len(p.Moves) < 4 {
		t.Fatalf("freed %v by %v", p.Freed, p.Moves)
	}
	for id, cpu := range map[functions.NodeID]int64{"a": 100, "b": 300, "c": 600} {
		if got := e.Reserved(e.Ref(id)).CPU; got != cpu {
			t.Errorf("planning changed %s: %d", id, got)
		}
	}
	for _, m := range p.Moves {
		if on, _ := e.Held(m.Reservation); on != m.From || !e.Move(m.Reservation, m.To) {
			t.Fatalf("%+v does not work", m)
		}
	}
	for _, f := range p.Freed {
		if held := e.Reserved(f); held != (functions.Resources{}) {
			t.Errorf("%d still holds %v", f, held)
		}
	}
	if p := engineOf(node("a", nil)).Compact(1, nil); len(p.Freed) != 0 {
		t.Errorf("nothing runs, yet %v", p)
	}
}

func TestADecisionAllocatesNothing(t *testing.T) {
	e := placement.NewEngine()
	for i := range 200 {
		e.SetNode(node(fmt.Sprintf("n%03d", i), func(n *placement.Node) { n.Allocatable, n.Zone = res(int64(1000+i%7*500), 4096, 50), fmt.Sprint(i%3) }))
	}
	r := placement.Request{
		Resources: res(100, 100, 1), Architecture: "amd64", Digest: "d", Namespace: "team", Affinity: e.Affinity(placement.Term{Key: "disk", Preferred: true}),
		Spread: placement.SpreadZones | placement.SpreadNodes, Peers: []placement.NodeRef{e.Ref("n001"), e.Ref("n002")},
		Near: []placement.NodeRef{e.Ref("n004"), e.Ref("n005")}, Apart: []placement.NodeRef{e.Ref("n003")},
	}
	e.SetQuota(functions.Quota{Namespace: "team", CPU: 1 << 40})
	e.Hold(e.Ref("n100"), "d")
	e.Release(e.Reserve(&r).Reservation)
	if n := testing.AllocsPerRun(100, func() { e.Release(e.Reserve(&r).Reservation) }); n != 0 {
		t.Errorf("%v allocations a decision", n)
	}
}

func TestVacateLooksAtEveryOtherNode(t *testing.T) {
	t.Parallel()
	e := engineOf(node("a", nil), node("b", nil), node("c", nil))
	for id, cpu := range map[functions.NodeID]int64{"a": 600, "b": 600} {
		e.Adopt(e.Ref(id), &placement.Request{Resources: res(cpu, 50, 1)})
	}
	if !e.Vacate(e.Ref("a")) {
		t.Error("c is empty and takes what a has")
	}
	e.RemoveNode(e.Ref("c"))
	if e.Vacate(e.Ref("a")) {
		t.Error("b has no room for what a has")
	}
	if got := e.Reserved(e.Ref("a")).CPU; got != 600 {
		t.Errorf("looking changed a: %d", got)
	}
	r := placement.Request{Resources: res(400, 50, 1)}
	if c := e.Reserve(&r); !c.Placed() {
		t.Error("a does not take instances any more")
	}
	if e.Vacate(e.Ref("gone")) {
		t.Error("a node that is not there has nothing to give")
	}
}
