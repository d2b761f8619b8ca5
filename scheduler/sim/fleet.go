package sim

import (
	"fmt"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/scheduler/placement"
)

// NodeSize is what a simulated node offers.
var NodeSize = functions.Resources{CPU: 16_000, Memory: 64 * functions.GiB, Instances: 250}

// instanceCPU is what an instance takes of a node's CPU, in millicores: the traces do not tell.
const instanceCPU = 100

// Fleet is as many equal nodes as are needed, filled by the scheduler's placement.
type Fleet struct {
	engine *placement.Engine
	nodes  map[functions.NodeID]int
	at     map[int]placed
	most   int
}

type placed struct {
	reservation placement.Reservation
	node        functions.NodeID
}

// NewFleet returns a fleet without nodes.
func NewFleet() *Fleet {
	return &Fleet{engine: placement.NewEngine(), nodes: map[functions.NodeID]int{}, at: map[int]placed{}}
}

// set sees to it that the application has an instance, or none.
func (f *Fleet) set(app int, memory int64, wanted bool) {
	p, has := f.at[app]
	switch {
	case wanted && !has:
		f.place(app, memory)
	case has && !wanted:
		f.engine.Release(p.reservation)
		f.nodes[p.node]--
		delete(f.at, app)
	}
}

func (f *Fleet) place(app int, memory int64) {
	req := placement.Request{Resources: functions.Resources{CPU: instanceCPU, Memory: memory, Instances: 1}}
	c := f.engine.Reserve(&req)
	if !c.Placed() {
		id := functions.NodeID(fmt.Sprintf("node-%04d", len(f.nodes)))
		f.engine.SetNode(&placement.Node{ID: id, Name: string(id), Known: true, Allocatable: NodeSize})
		f.nodes[id] = 0
		if c = f.engine.Reserve(&req); !c.Placed() {
			// It is larger than a node.
			return
		}
	}
	f.nodes[c.ID]++
	f.at[app] = placed{c.Reservation, c.ID}
	f.most = max(f.most, f.used())
}

// used counts the nodes that hold something.
func (f *Fleet) used() int {
	n := 0
	for _, held := range f.nodes {
		if held > 0 {
			n++
		}
	}
	return n
}
