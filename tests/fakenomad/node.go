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
		Meta:        map[string]string{"zone": fmt.Sprintf("z%d", i), "tatami_server": "true"},
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
		if wait := c.later(c.cfg.Grace, func() time.Duration { return c.miss(n) }); wait > 0 {
			c.later(wait, func() time.Duration { c.giveUp(n); return 0 })
		}
	})
}

// later does something with the lock held when a time is over, unless the cluster is closed before, and returns what it returns.
func (c *Cluster) later(d time.Duration, do func() time.Duration) time.Duration {
	select {
	case <-time.After(d):
	case <-c.stop:
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return do()
}

// miss says that a node's heartbeats fail. Its allocations are lost, but for those whose group waits for them: they are unknown, and those after which
// there are replacements get them at once. It returns how long the longest is waited for.
func (c *Cluster) miss(n *node) (wait time.Duration) {
	n.Status = api.NodeStatusDown
	for _, a := range c.allocs {
		switch d := a.disconnect; {
		case a.NodeID != n.ID || a.terminal():
		case d == nil || d.LostAfter == nil || a.ClientStatus != api.AllocClientStatusRunning:
			c.loseAlloc(a)
		default:
			n.Status, wait = api.NodeStatusDisconnected, max(wait, *d.LostAfter)
			c.setStatus(a, api.AllocClientStatusUnknown)
		}
	}
	c.nodeChanged(n, "NodeRegistration")
	return wait
}

// giveUp loses what was unknown on a node for too long. What is not to be replaced stays unknown.
func (c *Cluster) giveUp(n *node) {
	n.Status = api.NodeStatusDown
	for _, a := range c.allocs {
		if a.NodeID == n.ID && a.ClientStatus == api.AllocClientStatusUnknown && a.replaced() {
			c.loseAlloc(a)
		}
	}
	c.nodeChanged(n, "NodeRegistration")
}

func (c *Cluster) loseAlloc(a *alloc) {
	a.DesiredStatus = api.AllocDesiredStatusStop
	c.setStatus(a, api.AllocClientStatusLost)
}
