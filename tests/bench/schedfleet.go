package main

import (
	"fmt"
	"math/rand/v2"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/scheduler/placement"
)

// kind is a function as placement sees it.
type kind struct {
	namespace, digest string
	size              functions.Resources
}

// instance is one that runs.
type instance struct {
	kind int
	// reservation is the engine's, node an array's.
	reservation placement.Reservation
	node        int
}

// policy decides where an instance goes.
type policy interface {
	place(k *kind, in instance) (instance, bool)
	end(k *kind, in instance)
}

// fleet is a simulated site: nodes, functions, and what runs.
type fleet struct {
	nodes []*placement.Node
	kinds []kind
	live  []instance
	rng   *rand.Rand
	// capacity is of all nodes, demand of what runs.
	capacity, demand functions.Resources
	popular          *rand.Zipf
}

// pick draws a function: few are popular, most are rare.
func (f *fleet) pick() int {
	if f.popular != nil {
		return int(f.popular.Uint64())
	}
	return f.rng.IntN(len(f.kinds))
}

func (f *fleet) place(p policy) bool {
	i := f.pick()
	k := &f.kinds[i]
	in, ok := p.place(k, instance{kind: i})
	if !ok {
		return false
	}
	f.add(in)
	return true
}

func (f *fleet) add(in instance) {
	f.live = append(f.live, in)
	f.demand = f.demand.Add(f.kinds[in.kind].size)
}

// draw takes an instance out of those that run.
func (f *fleet) draw() instance {
	i := f.rng.IntN(len(f.live))
	in := f.live[i]
	last := len(f.live) - 1
	f.live[i] = f.live[last]
	f.live = f.live[:last]
	return in
}

func (f *fleet) end(p policy) {
	in := f.draw()
	k := &f.kinds[in.kind]
	f.demand = f.demand.Sub(k.size)
	p.end(k, in)
}

// load is the share of the scarcer of CPU and memory that is taken.
func (f *fleet) load() float64 {
	return max(float64(f.demand.CPU)/float64(f.capacity.CPU), float64(f.demand.Memory)/float64(f.capacity.Memory))
}

func (f *fleet) addNode(n *placement.Node) {
	n.ID = functions.NodeID(fmt.Sprintf("nod_%06d", len(f.nodes)))
	n.Name, n.Known = string(n.ID), true
	f.nodes = append(f.nodes, n)
	f.capacity = f.capacity.Add(n.Allocatable)
}

// indexed is the engine, with the preferences of production: nodes hold the artifacts of what ran on them last.
type indexed struct {
	engine *placement.Engine
	cache  map[placement.NodeRef]*ring
	// still keeps the caches as they are.
	still   bool
	request placement.Request
	homes   int
}

// ring keeps the artifacts that a node unpacked last.
type ring struct {
	digests []string
	has     map[string]struct{}
	next    int
}

// newIndexed returns an engine with the fleet's nodes, each of which keeps so many artifacts.
func newIndexed(f *fleet, artifacts int) *indexed {
	x := &indexed{engine: placement.NewEngine(), cache: map[placement.NodeRef]*ring{}}
	for _, n := range f.nodes {
		x.cache[x.engine.SetNode(n)] = &ring{digests: make([]string, artifacts), has: map[string]struct{}{}}
	}
	return x
}

func (x *indexed) place(k *kind, in instance) (instance, bool) {
	x.request.Resources, x.request.Namespace, x.request.Digest, x.request.Architecture = k.size, k.namespace, k.digest, "amd64"
	c := x.engine.Reserve(&x.request)
	if !c.Placed() {
		return in, false
	}
	in.reservation = c.Reservation
	if c.Home {
		x.homes++
	}
	if !x.still {
		x.keep(c.Node, k.digest)
	}
	return in, true
}

// keep puts an artifact into the node's cache; the oldest goes.
func (x *indexed) keep(n placement.NodeRef, digest string) {
	r := x.cache[n]
	if _, ok := r.has[digest]; ok {
		return
	}
	if old := r.digests[r.next]; old != "" {
		x.engine.Drop(n, old)
		delete(r.has, old)
	}
	r.digests[r.next] = digest
	r.has[digest] = struct{}{}
	r.next = (r.next + 1) % len(r.digests)
	x.engine.Hold(n, digest)
}

func (x *indexed) end(_ *kind, in instance) { x.engine.Release(in.reservation) }

// flat keeps the nodes in an array: what the baselines search.
type flat struct {
	nodes  []flatNode
	quotas map[string]*placement.Budget
	rng    *rand.Rand
	// samples is how many nodes with room are compared; 0 compares all.
	samples int
}

type flatNode struct {
	free      functions.Resources
	cpu, mem  float64
	instances int
	open      bool
}

func newFlat(f *fleet, samples int, seed uint64) *flat {
	a := &flat{quotas: map[string]*placement.Budget{}, rng: rand.New(rand.NewPCG(seed, 1)), samples: samples}
	for _, n := range f.nodes {
		a.nodes = append(a.nodes, flatNode{free: n.Allocatable, cpu: 1 / float64(n.Allocatable.CPU), mem: 1 / float64(n.Allocatable.Memory), open: !n.Draining})
	}
	return a
}

func (a *flat) place(k *kind, in instance) (instance, bool) {
	b := a.quotas[k.namespace]
	if b != nil && b.Quota.Exceeded(b.Used, k.size) != "" {
		return in, false
	}
	best := a.scan(k)
	if a.samples > 0 {
		best = a.sample(k)
	}
	if best < 0 {
		return in, false
	}
	in.node = best
	a.take(best, k, 1)
	return in, true
}

func (a *flat) take(i int, k *kind, sign int64) {
	d := functions.Resources{CPU: sign * k.size.CPU, Memory: sign * k.size.Memory, Instances: sign * k.size.Instances}
	n := &a.nodes[i]
	n.free = n.free.Sub(d)
	n.instances += int(sign)
	if b := a.quotas[k.namespace]; b != nil {
		b.Used = b.Used.Add(d)
	}
}

// scan looks at every node: MostAllocated, the mean share taken.
func (a *flat) scan(k *kind) int {
	if a.samples > 0 {
		return -1
	}
	best, least := -1, 3.0
	for i := range a.nodes {
		n := &a.nodes[i]
		if !n.open || !k.size.Fits(n.free) {
			continue
		}
		if left := float64(n.free.CPU-k.size.CPU)*n.cpu + float64(n.free.Memory-k.size.Memory)*n.mem; left < least {
			best, least = i, left
		}
	}
	return best
}

// sample compares some nodes with room, found from random ones on.
func (a *flat) sample(k *kind) int {
	best, least, found := -1, 3.0, 0
	for tried := 0; found < a.samples && tried < 2*len(a.nodes); tried++ {
		i := a.rng.IntN(len(a.nodes))
		n := &a.nodes[i]
		if !n.open || !k.size.Fits(n.free) {
			continue
		}
		found++
		if left := float64(n.free.CPU-k.size.CPU)*n.cpu + float64(n.free.Memory-k.size.Memory)*n.mem; left < least {
			best, least = i, left
		}
	}
	return best
}

func (a *flat) end(k *kind, in instance) { a.take(in.node, k, -1) }

// open counts the nodes with an instance.
func (a *flat) open() int {
	open := 0
	for i := range a.nodes {
		if a.nodes[i].instances > 0 {
			open++
		}
	}
	return open
}

func (x *indexed) open(f *fleet) int {
	open := 0
	for _, n := range f.nodes {
		if x.engine.Reserved(x.engine.Ref(n.ID)).Instances > 0 {
			open++
		}
	}
	return open
}
