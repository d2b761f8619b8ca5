package placement_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/scheduler/placement"
	"pgregory.net/rapid"
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

func TestEveryNodeGetsAVerdict(t *testing.T) {
	t.Parallel()
	nodes := []*placement.Node{
		node("a-lost", func(n *placement.Node) { n.Lost = true }),
		node("b-new", func(n *placement.Node) { n.Known = false }),
		node("c-draining", func(n *placement.Node) { n.Draining = true }),
		node("d-cordoned", func(n *placement.Node) { n.Cordoned = true }),
		node("e-arm", func(n *placement.Node) { n.Architecture = "arm64" }),
		node("f-cpu", func(n *placement.Node) { n.Reserved = res(900, 0, 1) }),
		node("g-mem", func(n *placement.Node) { n.Reserved = res(0, 1000, 1) }),
		node("h-slots", func(n *placement.Node) { n.Reserved = res(0, 0, 10) }),
		node("i-loose", nil),
		node("j-tight", func(n *placement.Node) { n.Reserved = res(500, 512, 1) }),
		node("k-small", func(n *placement.Node) { n.Allocatable = res(1000, 64, 10) }),
	}
	d := placement.Place(nodes, placement.Budget{}, placement.Request{Resources: res(200, 128, 1), Architecture: "amd64"})
	got := map[string]string{}
	for i := range d.Verdicts {
		got[d.Verdicts[i].Name] = d.Verdicts[i].Reason()
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
		"i-loose":    "fits, but less tightly: 14% taken with it",
		"j-tight":    "chosen: the tightest fit, 51% taken with it",
		"k-small":    "not enough memory: 128 MiB needed, 64 MiB on the whole node",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("verdicts (-want +got):\n%s", diff)
	}
	if d.Node != "j-tight" || !d.Placed() || d.Never {
		t.Errorf("node %q, never %t", d.Node, d.Never)
	}
	if want := "j-tight is the tightest of 2 that fit: 51% taken with it"; d.Reason() != want {
		t.Errorf("reason %q, want %q", d.Reason(), want)
	}
}

func TestTheArtifactDecidesBetweenEqualsOnly(t *testing.T) {
	t.Parallel()
	holds := func(n *placement.Node) { n.Artifacts = map[string]struct{}{"sha256:x": {}} }
	req := placement.Request{Resources: res(100, 100, 1), Digest: "sha256:x"}
	equal := []*placement.Node{node("a", nil), node("b", holds)}
	if d := placement.Place(equal, placement.Budget{}, req); d.Node != "b" {
		t.Errorf("equals: chose %s", d.Node)
	}
	tighter := []*placement.Node{node("a", func(n *placement.Node) { n.Reserved = res(1, 0, 0) }), node("b", holds)}
	if d := placement.Place(tighter, placement.Budget{}, req); d.Node != "a" {
		t.Errorf("a tighter one without: chose %s", d.Node)
	}
}

func TestQuotaRefusalIsNamed(t *testing.T) {
	t.Parallel()
	req := placement.Request{Resources: res(200, 128, 1)}
	for name, tc := range map[string]struct {
		quota functions.Quota
		used  functions.Resources
		bound string
		never bool
		want  string
	}{
		"none":      {used: res(1e6, 1e6, 1e6)},
		"cpu":       {quota: functions.Quota{CPU: 300}, used: res(200, 0, 1), bound: "cpu", want: "quota of namespace team: cpu: 200m needed, 200m of 300m used"},
		"memory":    {quota: functions.Quota{Memory: 64 * functions.MiB}, bound: "memory", never: true, want: "quota of namespace team: memory: 128 MiB needed, 0 MiB of 64 MiB used"},
		"instances": {quota: functions.Quota{Instances: 2}, used: res(0, 0, 2), bound: "instances", want: "quota of namespace team: instances: 2 of 2 used"},
		"fits":      {quota: functions.Quota{CPU: 400, Memory: functions.GiB, Instances: 3}, used: res(200, 100, 2)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := placement.Place([]*placement.Node{node("a", nil)}, placement.Budget{Namespace: "team", Quota: tc.quota, Used: tc.used}, req)
			if d.Quota != tc.bound || d.Never != tc.never || d.Placed() != (tc.bound == "") {
				t.Errorf("quota %q, never %t, placed %t", d.Quota, d.Never, d.Placed())
			}
			if tc.want != "" && d.Reason() != tc.want {
				t.Errorf("reason %q, want %q", d.Reason(), tc.want)
			}
		})
	}
}

func TestNeverMeansThatNoEndHelps(t *testing.T) {
	t.Parallel()
	full := node("full", func(n *placement.Node) { n.Reserved = n.Allocatable })
	small := node("small", func(n *placement.Node) { n.Allocatable = res(100, 100, 1) })
	arm := node("arm", func(n *placement.Node) { n.Architecture = "arm64" })
	fresh := node("fresh", func(n *placement.Node) { n.Known = false })
	req := placement.Request{Resources: res(200, 128, 1), Architecture: "amd64"}
	for _, tc := range []struct {
		nodes []*placement.Node
		never bool
	}{
		{nil, false},
		{[]*placement.Node{full}, false},
		{[]*placement.Node{small}, true},
		{[]*placement.Node{small, arm}, true},
		{[]*placement.Node{small, full}, false},
		{[]*placement.Node{small, fresh}, false},
	} {
		if d := placement.Place(tc.nodes, placement.Budget{}, req); d.Never != tc.never || d.Placed() {
			t.Errorf("%d nodes: never %t, placed %t: %s", len(tc.nodes), d.Never, d.Placed(), d.Reason())
		}
	}
}

var anyNode = rapid.Custom(func(t *rapid.T) *placement.Node {
	n := node("", nil)
	n.Allocatable = res(rapid.Int64Range(100, 4000).Draw(t, "cpu"), rapid.Int64Range(64, 4096).Draw(t, "mem"), rapid.Int64Range(0, 8).Draw(t, "slots"))
	n.Draining = rapid.IntRange(0, 9).Draw(t, "draining") == 0
	n.Cordoned = rapid.IntRange(0, 9).Draw(t, "cordoned") == 0
	if rapid.Bool().Draw(t, "arm") {
		n.Architecture = "arm64"
	}
	if rapid.Bool().Draw(t, "holds") {
		n.Artifacts = map[string]struct{}{"d": {}}
	}
	return n
})

var anyRequest = rapid.Custom(func(t *rapid.T) placement.Request {
	return placement.Request{
		Resources:    res(rapid.Int64Range(10, 2000).Draw(t, "cpu"), rapid.Int64Range(16, 2048).Draw(t, "mem"), 1),
		Architecture: rapid.SampledFrom([]string{"amd64", "arm64"}).Draw(t, "arch"),
		Digest:       rapid.SampledFrom([]string{"d", "e"}).Draw(t, "digest"),
	}
})

// Placing and ending at random never overcommits a node nor breaks the quota, takes the best there is, and does not depend on the order of nodes.
func TestPlaceNeverOvercommits(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		nodes := rapid.SliceOfN(anyNode, 1, 8).Draw(t, "nodes")
		for i, n := range nodes {
			n.ID = functions.NodeID(fmt.Sprintf("n%d", i))
		}
		q := functions.Quota{CPU: rapid.Int64Range(0, 5000).Draw(t, "qcpu"), Memory: rapid.Int64Range(0, 8).Draw(t, "qmem") * functions.GiB, Instances: rapid.Int64Range(0, 20).Draw(t, "qinst")}
		var used functions.Resources
		type held struct {
			n *placement.Node
			r functions.Resources
		}
		var running []held
		byID := map[functions.NodeID]*placement.Node{}
		for _, n := range nodes {
			byID[n.ID] = n
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			if len(running) > 0 && rapid.IntRange(0, 2).Draw(t, "end") == 0 {
				i := rapid.IntRange(0, len(running)-1).Draw(t, "which")
				running[i].n.Reserved = running[i].n.Reserved.Sub(running[i].r)
				used = used.Sub(running[i].r)
				running = append(running[:i], running[i+1:]...)
				continue
			}
			req := anyRequest.Draw(t, "request")
			b := placement.Budget{Quota: q, Used: used}
			d := placement.Place(nodes, b, req)
			shuffled := append([]*placement.Node{}, nodes...)
			rand.New(rand.NewPCG(1, uint64(len(running)))).Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
			if other := placement.Place(shuffled, b, req); other.Node != d.Node {
				t.Fatalf("the order of nodes matters: %s and %s", d.Node, other.Node)
			}
			checkBest(t, nodes, b, req, &d)
			if !d.Placed() {
				continue
			}
			n := byID[d.Node]
			n.Reserved, used = n.Reserved.Add(req.Resources), used.Add(req.Resources)
			running = append(running, held{n, req.Resources})
			if !n.Reserved.Fits(n.Allocatable) {
				t.Fatalf("%s overcommitted: %s of %s", n.ID, n.Reserved, n.Allocatable)
			}
			if bound := q.Exceeded(used, functions.Resources{}); bound != "" {
				t.Fatalf("quota broken: %s", bound)
			}
			if n.Draining || n.Cordoned || n.Architecture != req.Architecture {
				t.Fatalf("%s must not be used", n.ID)
			}
		}
	})
}

func checkBest(t *rapid.T, nodes []*placement.Node, b placement.Budget, req placement.Request, d *placement.Decision) {
	best, fits := -1.0, false
	for _, n := range nodes {
		if placement.Usable(n, req.Architecture) && req.Resources.Fits(n.Free()) {
			fits = true
			best = max(best, placement.Score(n.Allocatable, n.Reserved.Add(req.Resources)))
		}
	}
	if quota := b.Quota.Exceeded(b.Used, req.Resources) != ""; d.Placed() != (fits && !quota) {
		t.Fatalf("placed %t, but fits %t, quota refuses %t", d.Placed(), fits, quota)
	}
	if d.Placed() && d.Score != best {
		t.Fatalf("score %v, the best is %v", d.Score, best)
	}
	if len(d.Verdicts) != len(nodes) {
		t.Fatalf("%d verdicts for %d nodes", len(d.Verdicts), len(nodes))
	}
	for i := range d.Verdicts {
		if d.Verdicts[i].Reason() == "" {
			t.Fatalf("no reason for %s", d.Verdicts[i].Node)
		}
	}
}

func BenchmarkPlace(b *testing.B) {
	for _, size := range []int{1, 10, 100} {
		b.Run(fmt.Sprintf("n%d", size), func(b *testing.B) {
			nodes := make([]*placement.Node, size)
			for i := range nodes {
				nodes[i] = node(fmt.Sprintf("n%03d", i), func(n *placement.Node) { n.Reserved = res(int64(i%9)*100, int64(i%7)*100, int64(i%5)) })
			}
			req := placement.Request{Resources: res(10, 10, 1)}
			b.ReportAllocs()
			for b.Loop() {
				if d := placement.Place(nodes, placement.Budget{}, req); !d.Placed() {
					b.Fatal(d.Reason())
				}
			}
		})
	}
}
