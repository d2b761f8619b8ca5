package fakenomad

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/hashicorp/nomad/api"
)

// alloc is an allocation and its process.
type alloc struct {
	api.AllocationListStub
	job   *job
	group *api.TaskGroup
	spec  string
	index int
	// disconnect is what the job says now of its node's loss.
	disconnect *api.DisconnectStrategy
	// stopping ends the process as the task says, killing at once; each is closed once.
	stopping, killing chan struct{}
	ended, killed     bool
	// done is closed when its tasks have ended.
	done chan struct{}
	// healthy is set once its checks have passed; without checks that it runs is enough.
	healthy bool
	// forgotten is set when its job was purged: it is in no list then, also while its tasks still end.
	forgotten bool
	// again is when one that could not be started may have another one in its place.
	again time.Time
}

// rescheduleDelay is how long Nomad waits, unless a job says otherwise, before it tries in another place what could not be started.
const rescheduleDelay = 30 * time.Second

func (a *alloc) terminal() bool {
	return slices.Contains([]string{api.AllocClientStatusComplete, api.AllocClientStatusFailed, api.AllocClientStatusLost}, a.ClientStatus)
}

// wanted reports whether the allocation is to run, and counts.
func (a *alloc) wanted() bool {
	return a.DesiredStatus == api.AllocDesiredStatusRun && !a.terminal() && (a.ClientStatus != api.AllocClientStatusUnknown || !a.replaced())
}

// replaced reports whether there is another one in its place while its node is away.
func (a *alloc) replaced() bool {
	d := a.disconnect
	return d == nil || d.Replace == nil || *d.Replace
}

func (a *alloc) end() {
	if !a.ended {
		a.ended = true
		close(a.stopping)
	}
}

func (a *alloc) kill() {
	if !a.killed {
		a.killed = true
		close(a.killing)
	}
}

// setStatus says how an allocation's tasks are.
func (c *Cluster) setStatus(a *alloc, status string) {
	if a.terminal() || a.ClientStatus == status {
		return
	}
	a.ClientStatus = status
	c.allocChanged(a, "AllocationUpdated")
}

// fail says that an allocation could not be started. After the delay there is another one.
func (c *Cluster) fail(a *alloc) {
	c.mu.Lock()
	a.again = time.Now().Add(rescheduleDelay)
	c.mu.Unlock()
	c.report(a, api.AllocClientStatusFailed)
	c.tasks.Go(func() { c.later(rescheduleDelay, func() time.Duration { c.settle(); return 0 }) })
}

func (c *Cluster) allocChanged(a *alloc, kind string) {
	a.ModifyIndex, a.ModifyTime = c.touch("allocs", "services"), time.Now().UnixNano()
	c.tell(a.ModifyIndex, api.TopicAllocation, kind, a.ID, []string{a.JobID}, a.AllocationListStub)
}

// settle starts and stops allocations until they are what the jobs say. Nothing in it waits.
func (c *Cluster) settle() {
	if c.closed {
		return
	}
	for _, j := range c.jobs {
		for _, g := range j.TaskGroups {
			c.settleGroup(j, g)
		}
		c.finish(j)
	}
}

// of lists a group's allocations that are to run, by index.
func (c *Cluster) of(j *job, group string) []*alloc {
	var out []*alloc
	for _, a := range c.allocs {
		if a.JobID == *j.ID && a.TaskGroup == group && a.wanted() {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, func(a, b *alloc) int { return cmp.Compare(a.index, b.index) })
	return out
}

func (c *Cluster) settleGroup(j *job, g *api.TaskGroup) {
	count := *g.Count
	if *j.Stop {
		count = 0
	}
	have := c.of(j, *g.Name)
	for len(have) > count {
		// The highest indexes go first.
		c.stopAlloc(have[len(have)-1])
		have = have[:len(have)-1]
	}
	atOnce := 1
	if g.Update != nil && g.Update.MaxParallel != nil {
		atOnce = *g.Update.MaxParallel
	}
	pending := 0
	for _, a := range have {
		if a.spec == j.spec {
			// What its tasks do not notice is changed in place.
			a.disconnect = g.Disconnect
		}
		if !a.well() {
			pending++
		}
	}
	for _, a := range have {
		switch n := c.findNode(a.NodeID); {
		case n.Drain:
			// One that leaves a node goes once it has another place.
			if c.place(j, g, a.index, a) {
				c.stopAlloc(a)
			}
		case a.spec != j.spec && pending < atOnce && a.ClientStatus == api.AllocClientStatusRunning:
			pending++
			c.stopAlloc(a)
			c.place(j, g, a.index, a)
		}
	}
	taken := map[int]bool{}
	for _, a := range c.allocs {
		if a.JobID == *j.ID && a.TaskGroup == *g.Name && a.spec == j.spec && a.ClientStatus == api.AllocClientStatusFailed && time.Now().Before(a.again) {
			taken[a.index] = true
		}
	}
	for _, a := range c.of(j, *g.Name) {
		taken[a.index] = true
	}
	for i := range count {
		if !taken[i] && !c.place(j, g, i, nil) {
			return
		}
	}
}

func (c *Cluster) stopAlloc(a *alloc) {
	a.DesiredStatus = api.AllocDesiredStatusStop
	c.allocChanged(a, "AllocationUpdateDesiredStatus")
	a.end()
}

// place makes an allocation on the node that has the fewest, among those that take it. Where it is there instead of another one on the same node, that one
// ends first.
func (c *Cluster) place(j *job, g *api.TaskGroup, index int, instead *alloc) bool {
	best, _ := c.find(j.Job, g)
	if best == nil {
		return false
	}
	a := &alloc{job: j, group: g, spec: j.spec, index: index, disconnect: g.Disconnect, stopping: make(chan struct{}), killing: make(chan struct{}), done: make(chan struct{})}
	a.AllocationListStub = api.AllocationListStub{
		ID: c.id("alloc"), EvalID: c.id("eval"), Name: fmt.Sprintf("%s.%s[%d]", *j.ID, *g.Name, index), Namespace: c.cfg.Namespace, NodeID: best.ID, NodeName: best.Name,
		JobID: *j.ID, JobType: *j.Type, JobVersion: *j.Version, TaskGroup: *g.Name, DesiredStatus: api.AllocDesiredStatusRun, ClientStatus: api.AllocClientStatusPending,
		CreateTime: time.Now().UnixNano(),
	}
	c.allocs[a.ID] = a
	a.CreateIndex = c.index + 1
	c.allocChanged(a, "PlanResult")
	c.tasks.Go(func() {
		defer close(a.done)
		if instead != nil && instead.NodeID == best.ID {
			select {
			case <-instead.done:
			case <-a.stopping:
			}
		}
		c.run(a, best)
	})
	return true
}

func (c *Cluster) listAllocs(r *http.Request) (any, *problem) {
	out := []*api.AllocationListStub{}
	for _, a := range c.allocs {
		if a.JobID == r.PathValue("id") && !a.forgotten {
			stub := a.AllocationListStub
			out = append(out, &stub)
		}
	}
	slices.SortFunc(out, func(a, b *api.AllocationListStub) int { return cmp.Compare(a.CreateIndex, b.CreateIndex) })
	return out, nil
}

func (c *Cluster) readAlloc(r *http.Request) (any, *problem) {
	a := c.allocs[r.PathValue("id")]
	if a == nil || a.forgotten {
		return nil, refuse(http.StatusNotFound, "alloc not found")
	}
	return a.AllocationListStub, nil
}

// signal sends a signal to an allocation's process; SIGKILL alone is known.
func (c *Cluster) signal(r *http.Request) (any, *problem) {
	req, p := read[api.AllocSignalRequest](r)
	a := c.allocs[r.PathValue("id")]
	switch {
	case p != nil:
		return nil, p
	case a == nil || a.terminal():
		return nil, refuse(http.StatusNotFound, "Unknown allocation %q", r.PathValue("id"))
	case req.Signal != "SIGKILL":
		return nil, refuse(http.StatusInternalServerError, "unknown signal %q", req.Signal)
	}
	a.kill()
	a.killed, a.killing = false, make(chan struct{})
	return nil, nil
}
