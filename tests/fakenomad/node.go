package fakenomad

import (
	"fmt"
	"net/http"
	"time"

	"github.com/hashicorp/nomad/api"
)

// The size of every node: what a task with cpu is given is a share of it.
const (
	nodeCores   = 4
	nodeCompute = 8000
	nodeMemory  = 16384
)

// addressAttr is the attribute with a node's address. All of them lie on loopback.
const addressAttr = "unique.network.ip-address"

type node struct {
	api.Node
	// dead is set while the machine is gone, whether or not that was noticed.
	dead bool
}

func newNode(id string, i int, network string) *node {
	return &node{Node: api.Node{
		ID: id, Name: fmt.Sprintf("client-%d", i), Datacenter: "dc1", NodePool: "default", Status: api.NodeStatusReady, SchedulingEligibility: api.NodeSchedulingEligible,
		Attributes:  map[string]string{"cpu.numcores": fmt.Sprint(nodeCores), "cpu.totalcompute": fmt.Sprint(nodeCompute), "driver.raw_exec": "1", addressAttr: fmt.Sprint(network, i+1)},
		Meta:        map[string]string{"zone": fmt.Sprintf("z%d", i)},
		CreateIndex: uint64(i) + 1, ModifyIndex: uint64(i) + 1,
	}}
}

func (n *node) takes() bool {
	return n.Status == api.NodeStatusReady && n.SchedulingEligibility == api.NodeSchedulingEligible && !n.Drain
}

func (c *Cluster) findNode(id string) *node {
	for _, n := range c.nodes {
		if n.ID == id || n.Name == id {
			return n
		}
	}
	return nil
}

func (c *Cluster) listNodes(*http.Request) (any, *problem) {
	out := []*api.NodeListStub{}
	for _, n := range c.nodes {
		out = append(out, &api.NodeListStub{
			ID: n.ID, Name: n.Name, Datacenter: n.Datacenter, NodePool: n.NodePool, Drain: n.Drain, SchedulingEligibility: n.SchedulingEligibility, Status: n.Status,
			CreateIndex: n.CreateIndex, ModifyIndex: n.ModifyIndex,
		})
	}
	return out, nil
}

func (c *Cluster) readNode(r *http.Request) (any, *problem) {
	n := c.findNode(r.PathValue("id"))
	if n == nil {
		return nil, refuse(http.StatusNotFound, "node not found")
	}
	return n.Node, nil
}

// nodeChanged tells of a change, and lets the allocations follow.
func (c *Cluster) nodeChanged(n *node, kind string) {
	n.ModifyIndex = c.touch("nodes")
	c.tell(n.ModifyIndex, api.TopicNode, kind, n.ID, nil, n.Node)
	c.settle()
}

func (c *Cluster) drainNode(r *http.Request) (any, *problem) {
	req, p := read[api.NodeUpdateDrainRequest](r)
	n := c.findNode(r.PathValue("id"))
	switch {
	case p != nil:
		return nil, p
	case n == nil:
		return nil, refuse(http.StatusNotFound, "node not found")
	}
	n.Drain, n.DrainStrategy = req.DrainSpec != nil, nil
	if n.Drain {
		n.DrainStrategy = &api.DrainStrategy{DrainSpec: *req.DrainSpec, StartedAt: time.Now()}
		n.SchedulingEligibility = api.NodeSchedulingIneligible
	} else if req.MarkEligible {
		n.SchedulingEligibility = api.NodeSchedulingEligible
	}
	c.nodeChanged(n, "NodeDrain")
	return &api.NodeDrainUpdateResponse{NodeModifyIndex: n.ModifyIndex}, nil
}

func (c *Cluster) markNode(r *http.Request) (any, *problem) {
	req, p := read[api.NodeUpdateEligibilityRequest](r)
	n := c.findNode(r.PathValue("id"))
	switch {
	case p != nil:
		return nil, p
	case n == nil:
		return nil, refuse(http.StatusNotFound, "node not found")
	}
	n.SchedulingEligibility = req.Eligibility
	c.nodeChanged(n, "NodeEligibility")
	return &api.NodeEligibilityUpdateResponse{NodeModifyIndex: n.ModifyIndex}, nil
}

// LoseNode has a machine go: its tasks are killed at once, and its allocations are missed and replaced after the grace.
func (c *Cluster) LoseNode(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.findNode(name)
	n.dead = true
	for _, a := range c.allocs {
		if a.NodeID == n.ID {
			a.kill()
		}
	}
	c.tasks.Go(func() {
		select {
		case <-time.After(c.cfg.Grace):
		case <-c.stop:
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		n.Status = api.NodeStatusDown
		for _, a := range c.allocs {
			if a.NodeID == n.ID && !a.terminal() {
				a.DesiredStatus = api.AllocDesiredStatusStop
				c.setStatus(a, api.AllocClientStatusLost)
			}
		}
		c.nodeChanged(n, "NodeRegistration")
	})
}
