package main

import (
	"math/rand/v2"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/scheduler/placement"
)

// mix is a site for packing: equal nodes, and the sizes of functions.
type mix struct {
	name   string
	nodes  int
	memory int64
	// sizes are millicores, MiB and how many of a hundred functions are so large.
	sizes [][3]int64
}

// Mix A is short of CPU on every node. In mix B what is large in one dimension is small in the other, and both are equally scarce.
var (
	mixA = mix{"a", 1000, 64 * functions.GiB, [][3]int64{
		{100, 128, 10}, {250, 256, 15}, {300, 512, 10}, {500, 512, 10}, {700, 1024, 10},
		{1000, 1024, 15}, {1500, 2048, 10}, {2000, 2048, 10}, {3000, 4096, 5}, {4000, 4096, 5},
	}}
	mixB = mix{"b", 300, 32 * functions.GiB, [][3]int64{
		{250, 8192, 8}, {500, 4096, 10}, {250, 2048, 10}, {250, 512, 15}, {500, 1024, 15},
		{1000, 512, 15}, {2000, 1024, 12}, {1000, 2048, 6}, {4000, 1024, 9},
	}}
)

func newMixFleet(m mix, seed uint64) *fleet {
	rng := rand.New(rand.NewPCG(seed, 2))
	f := &fleet{rng: rng}
	for range m.nodes {
		f.addNode(&placement.Node{Architecture: "amd64", Allocatable: functions.Resources{CPU: 16_000, Memory: m.memory, Instances: 250}})
	}
	const kinds = 2000
	for i := range kinds {
		at := rng.Int64N(100)
		for _, s := range m.sizes {
			if at -= s[2]; at < 0 {
				f.kinds = append(f.kinds, kind{
					namespace: namespaceOf(i), digest: digestOf(i),
					size: functions.Resources{CPU: s[0], Memory: s[1] * functions.MiB, Instances: 1},
				})
				break
			}
		}
	}
	return f
}

// lowerBound is how many nodes the demand needs at least.
func (f *fleet) lowerBound() int {
	n := f.nodes[0].Allocatable
	ceil := func(a, b int64) int64 { return (a + b - 1) / b }
	return int(max(ceil(f.demand.CPU, n.CPU), ceil(f.demand.Memory, n.Memory), ceil(f.demand.Instances, n.Instances)))
}

// churn ends and places at a load until there were so many turnovers. It returns the share of what was asked in the second half that found no
// room, though there was enough of it in sum.
func (f *fleet) churn(p policy, load float64, turnovers int) float64 {
	for f.load() < load && f.place(p) {
	}
	asked, rejected := 0, 0
	for t := range turnovers {
		for range len(f.live) {
			f.end(p)
			for f.load() < load {
				ok := f.place(p)
				if t >= turnovers/2 {
					asked++
					if !ok {
						rejected++
					}
				}
				if !ok {
					break
				}
			}
		}
	}
	return float64(rejected) / float64(max(asked, 1))
}
