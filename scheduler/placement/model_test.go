package placement

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/tatami-faas/tatami/functions"
)

// model is a plain ledger of what an engine should hold, and a full scan of what it should choose.
type model struct {
	nodes  map[functions.NodeID]*modelNode
	quotas map[string]functions.Quota
	used   map[string]functions.Resources
	// homes are the holders of each artifact, in the order in which they came to hold it.
	homes map[string][]functions.NodeID
	live  []placed
}

type modelNode struct {
	Node
	Reserved functions.Resources
	// aside is what is kept from being given away.
	aside functions.Resources
	ref   NodeRef
}

type placed struct {
	handle Reservation
	node   functions.NodeID
	req    Request
}

func newModel() *model {
	return &model{nodes: map[functions.NodeID]*modelNode{}, quotas: map[string]functions.Quota{}, used: map[string]functions.Resources{}, homes: map[string][]functions.NodeID{}}
}

// costOf is the rule in one place: the mean share left free, plus what unmet wishes cost.
func costOf(n *modelNode, r *Request) (int64, bool) {
	need, free := demand(r), n.Allocatable.Sub(n.Reserved).Sub(n.aside)
	if !n.Known || n.Lost || n.Draining || n.Cordoned || !compatible(n.Architecture, r.Architecture) || len(missing(r.Needs, n.Lacks)) > 0 || !need.Fits(free) {
		return 0, false
	}
	var penalty int64
	if r.Affinity != nil {
		if penalty = r.Affinity.judge(n.Labels); penalty == excluded {
			return 0, false
		}
	}
	return weightOf(n.Allocatable).of(free.CPU-need.CPU, free.Memory-need.Memory) + penalty, true
}

func (m *model) total() functions.Resources {
	var sum functions.Resources
	for _, u := range m.used {
		sum = sum.Add(u)
	}
	return sum
}

// refuses is the rule of quotas: the namespace's own bound, else that of the defaults, and then that of all together.
func (m *model) refuses(namespace string, more functions.Resources) Bound {
	own, defaults, total := m.quotas[namespace], m.quotas[functions.QuotaDefaults], m.quotas[functions.QuotaTotal]
	used, all := m.used[namespace].Add(more), m.total().Add(more)
	for _, d := range []struct {
		name                           string
		own, defaults, total, use, all int64
	}{
		{"cpu", own.CPU, defaults.CPU, 0, used.CPU, 0},
		{"memory", own.Memory, defaults.Memory, 0, used.Memory, 0},
		{"instances", own.Instances, defaults.Instances, 0, used.Instances, 0},
		{"cpu", 0, 0, total.CPU, 0, all.CPU},
		{"memory", 0, 0, total.Memory, 0, all.Memory},
		{"instances", 0, 0, total.Instances, 0, all.Instances},
	} {
		switch {
		case d.own > 0 && d.use > d.own:
			return Bound{d.name, namespace}
		case d.own == 0 && d.defaults > 0 && d.use > d.defaults:
			return Bound{d.name, functions.QuotaDefaults}
		case d.total > 0 && d.all > d.total:
			return Bound{d.name, functions.QuotaTotal}
		}
	}
	return Bound{}
}

// choose is the full scan.
func (m *model) choose(r *Request) (id functions.NodeID, cost int64) {
	if m.refuses(r.Namespace, demand(r)) != (Bound{}) {
		return "", 0
	}
	peers, zones, apart := map[functions.NodeID]int{}, map[string]int{}, map[functions.NodeID]int{}
	for _, n := range m.nodes {
		for _, p := range r.Apart {
			if n.ref == p {
				apart[n.ID]++
			}
		}
	}
	if r.Spread != 0 {
		for _, n := range m.nodes {
			for _, p := range r.Peers {
				if n.ref == p {
					peers[n.ID]++
					zones[n.Zone]++
				}
			}
		}
	}
	rank := func(n *modelNode) [2]int {
		var k [2]int
		if r.Spread&SpreadZones != 0 {
			k[0] = zones[n.Zone]
		}
		if r.Spread&SpreadNodes != 0 {
			k[1] = peers[n.ID]
		}
		k[1] += apart[n.ID]
		return k
	}
	tier := [2]int{math.MaxInt, 0}
	for _, n := range m.nodes {
		c, ok := costOf(n, r)
		k := rank(n)
		if !ok {
			continue
		}
		switch d := slices.Compare(k[:], tier[:]); {
		case d > 0:
		case d < 0 || c < cost || c == cost && n.ID < id:
			tier, id, cost = k, n.ID, c
		}
	}
	homes := m.homes[r.Digest]
	if id == "" || tier[1] > 0 {
		return id, cost
	}
	among := func(hosts []functions.NodeID, slack int64) (best functions.NodeID, limit int64) {
		limit = cost + slack
		for _, h := range hosts {
			n := m.nodes[h]
			c, ok := costOf(n, r)
			if ok && rank(n) == tier && (c < limit || c == limit && (best == "" || h < best)) {
				best, limit = h, c
			}
		}
		return best, limit
	}
	var near []functions.NodeID
	for _, p := range r.Near[:min(len(r.Near), nearLooked)] {
		for _, n := range m.nodes {
			if n.ref == p {
				near = append(near, n.ID)
			}
		}
	}
	if slices.Contains(near, id) {
		return id, cost
	}
	if best, limit := among(near, nearCost); best != "" {
		return best, limit
	}
	if slices.Contains(homes, id) {
		return id, cost
	}
	if best, limit := among(homes[max(len(homes)-homesLooked, 0):], homeCost); best != "" {
		return best, limit
	}
	return id, cost
}

func (m *model) hold(id functions.NodeID, digest string) {
	if !slices.Contains(m.homes[digest], id) {
		m.homes[digest] = append(m.homes[digest], id)
	}
}

func (m *model) drop(id functions.NodeID, digest string) {
	if i := slices.Index(m.homes[digest], id); i >= 0 {
		m.homes[digest] = slices.Delete(m.homes[digest], i, i+1)
	}
}

func (m *model) add(p placed, sign int64) {
	d := demand(&p.req)
	if sign < 0 {
		d = functions.Resources{}.Sub(d)
	}
	n := m.nodes[p.node]
	n.Reserved = n.Reserved.Add(d)
	m.used[p.req.Namespace] = m.used[p.req.Namespace].Add(d)
}

// check compares all sums.
func (m *model) check(e *Engine) error {
	nodes, live := e.Len()
	if nodes != len(m.nodes) || live != len(m.live) {
		return fmt.Errorf("%d nodes and %d reservations, want %d and %d", nodes, live, len(m.nodes), len(m.live))
	}
	sums := map[functions.NodeID]functions.Resources{}
	for _, p := range m.live {
		on, amount := e.Held(p.handle)
		if on != m.nodes[p.node].ref || amount != demand(&p.req) {
			return fmt.Errorf("a reservation is on %d with %v, want %s with %v", on, amount, p.node, demand(&p.req))
		}
		sums[p.node] = sums[p.node].Add(amount)
	}
	for id, n := range m.nodes {
		if got := e.Reserved(n.ref); got != n.Reserved || got != sums[id] {
			return fmt.Errorf("%s: %v reserved, want %v", id, got, n.Reserved)
		}
		if got, want := e.Free(n.ref), n.Allocatable.Sub(n.Reserved).Sub(n.aside); got != want {
			return fmt.Errorf("%s: %v free, want %v", id, got, want)
		}
	}
	if got := e.Budget(functions.QuotaTotal).Used; got != m.total() {
		return fmt.Errorf("all together: %v used, want %v", got, m.total())
	}
	for name, used := range m.used {
		if got := e.Budget(name).Used; got != used {
			return fmt.Errorf("namespace %s: %v used, want %v", name, got, used)
		}
	}
	return nil
}

var (
	someZones  = []string{"", "a", "b", "c"}
	someArchs  = []string{"amd64", "amd64", "amd64", "arm64", ""}
	someLabels = []map[string]string{nil, {"disk": "nvme"}, {"disk": "hdd"}, {"gpu": "l4", "disk": "nvme"}}
	someLacks  = []map[functions.Feature]string{nil, nil, {functions.FeatureGVisor: "no runsc"}, {functions.FeatureGVisor: "no runsc", functions.FeatureEgress: "no nftables"}}
	someNeeds  = [][]functions.Feature{nil, nil, {functions.FeatureGVisor}, {functions.FeatureEgress}}
	someTerms  = [][]Term{
		{{Key: "disk", Value: "nvme"}},
		{{Key: "gpu", Not: true}},
		{{Key: "disk", Value: "nvme", Preferred: true}, {Key: "gpu", Not: true, Preferred: true}},
		{{Key: "host", Value: "7", Preferred: true}},
	}
)

// variety is how much nodes differ: few kinds of machine, no two alike, or two kinds only, of which many are in a cell of the index.
type variety string

const (
	kinds variety = "kinds"
	odd   variety = "odd"
	alike variety = "alike"
)

// randomNode draws a node.
func randomNode(rng *rand.Rand, id int, v variety) Node {
	cpu := []int64{8, 16, 32, 48, 64, 96}[rng.IntN(6)] * 1000
	memory := cpu / 1000 * []int64{2, 4, 8}[rng.IntN(3)] * functions.GiB
	switch v {
	case odd:
		cpu, memory = cpu+rng.Int64N(1000), memory+rng.Int64N(functions.GiB)
	case alike:
		// One dimension hardly matters: nodes crowd in the cells of the other.
		cpu, memory = 16_000, functions.GiB<<10
		if id%2 == 0 {
			cpu, memory = 1_000_000, 32*functions.GiB
		}
	}
	n := Node{
		ID: functions.NodeID(fmt.Sprintf("nod_%04d", id)), Known: rng.IntN(50) > 0, Zone: someZones[rng.IntN(4)], Architecture: someArchs[rng.IntN(5)],
		Allocatable: functions.Resources{CPU: cpu, Memory: memory, Instances: 4 + rng.Int64N(60)}, Labels: someLabels[rng.IntN(4)],
		Lacks: someLacks[rng.IntN(4)],
	}
	if v == odd && rng.IntN(2) == 0 {
		n.Labels = map[string]string{"host": fmt.Sprint(id)}
	}
	if v == alike {
		n.Zone, n.Architecture, n.Labels, n.Lacks = "", "amd64", nil, nil
	}
	n.Name = string(n.ID)
	return n
}

func randomRequest(rng *rand.Rand, terms []*Affinity, live []placed, nodes map[functions.NodeID]*modelNode) Request {
	r := Request{
		Resources:    functions.Resources{CPU: 50 * (1 + rng.Int64N(40)), Memory: (1 + rng.Int64N(64)) * 64 * functions.MiB, Instances: 1},
		Architecture: someArchs[rng.IntN(5)], Digest: fmt.Sprint("d", rng.IntN(40)), Namespace: fmt.Sprint("team", rng.IntN(6)),
		Needs: someNeeds[rng.IntN(4)],
	}
	switch rng.IntN(12) {
	case 0:
		r.Resources.CPU, r.Resources.Memory = r.Resources.CPU*10, r.Resources.Memory*5
	case 1:
		r.Resources.CPU = 0
	case 2:
		r.Resources = functions.Resources{CPU: 1 + rng.Int64N(4000), Memory: 1 + rng.Int64N(8*functions.GiB), Instances: rng.Int64N(3)}
	}
	if rng.IntN(4) == 0 {
		r.Affinity = terms[rng.IntN(len(terms))]
	}
	if rng.IntN(5) == 0 && len(live) > 0 {
		r.Spread = Spread(1 + rng.IntN(3))
		for range rng.IntN(12) {
			r.Peers = append(r.Peers, nodes[live[rng.IntN(len(live))].node].ref)
		}
	}
	// Now and then more than are looked at, and nodes that are gone.
	some := func() (out []NodeRef) {
		for range rng.IntN(rng.IntN(2)*140 + 4) {
			if rng.IntN(8) == 0 {
				out = append(out, NodeRef(rng.IntN(len(nodes)+2)))
			} else {
				out = append(out, nodes[live[rng.IntN(len(live))].node].ref)
			}
		}
		return out
	}
	if rng.IntN(6) == 0 && len(live) > 0 {
		r.Near = some()
	}
	if rng.IntN(6) == 0 && len(live) > 0 {
		r.Apart = some()
	}
	return r
}

func sortedIDs(m map[functions.NodeID]*modelNode) []functions.NodeID {
	return slices.Sorted(maps.Keys(m))
}
