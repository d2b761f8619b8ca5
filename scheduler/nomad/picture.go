package nomad

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/tatami-faas/tatami/scheduler"
)

// picture is what is known of the job: as listed, and as events changed it since.
type picture struct {
	job, group string
	// version is the job's modify index; count and bounds are its group's.
	version         uint64
	count, min, max int
	elastic         bool
	// deployment is the active one's id; empty where none is.
	deployment string
	allocs     map[string]alloc
	nodes      map[string]node
}

// alloc is an allocation as far as it matters here. Lists and events spell it alike.
type alloc struct {
	ID            string
	Name          string
	NodeID        string
	JobID         string
	TaskGroup     string
	DesiredStatus string
	ClientStatus  string
	CreateTime    int64
	ModifyIndex   uint64
}

// node is a Nomad node as far as it matters here. Lists and events spell it alike.
type node struct {
	ID                    string
	Name                  string
	Drain                 bool
	DrainStrategy         *struct{}
	SchedulingEligibility string
	ModifyIndex           uint64
}

func (n *node) draining() bool { return n.Drain || n.DrainStrategy != nil }

// over reports whether the allocation's worker has ended, or will not be started.
func (a *alloc) over() bool {
	return slices.Contains([]string{api.AllocClientStatusComplete, api.AllocClientStatusFailed, api.AllocClientStatusLost}, a.ClientStatus)
}

// unknown reports whether Nomad has lost sight of the allocation's node.
func (a *alloc) unknown() bool { return a.ClientStatus == api.AllocClientStatusUnknown }

// index is the allocation's place in its group: its name ends with it, in brackets.
func (a *alloc) index() (int, bool) {
	_, in, ok := strings.Cut(a.Name, "[")
	if !ok {
		return 0, false
	}
	i, err := strconv.Atoi(strings.TrimSuffix(in, "]"))
	return i, err == nil && i >= 0
}

// setJob takes in the job as it is.
func (p *picture) setJob(j *api.Job, active *api.Deployment) error {
	i := slices.IndexFunc(j.TaskGroups, func(g *api.TaskGroup) bool { return g.Name != nil && *g.Name == p.group })
	if i < 0 {
		return fmt.Errorf("the job %s has no group %s", p.job, p.group)
	}
	g := j.TaskGroups[i]
	p.version, p.count = deref(j.JobModifyIndex), deref(g.Count)
	p.elastic, p.min, p.max = false, p.count, p.count
	if s := g.Scaling; s != nil && (s.Enabled == nil || *s.Enabled) && s.Max != nil && !deref(j.Stop) {
		p.elastic, p.min, p.max = true, int(deref(s.Min)), int(*s.Max)
	}
	p.deployment = ""
	if active != nil && !slices.Contains([]string{api.DeploymentStatusSuccessful, api.DeploymentStatusFailed, api.DeploymentStatusCancelled}, active.Status) {
		p.deployment = active.ID
	}
	return nil
}

// noJob takes in that there is no such job.
func (p *picture) noJob() { p.elastic, p.count, p.min, p.max, p.deployment = false, 0, 0, 0, "" }

func deref[T any](p *T) (zero T) {
	if p == nil {
		return zero
	}
	return *p
}

func (p *picture) setAlloc(a alloc) {
	if old, known := p.allocs[a.ID]; a.JobID != p.job || a.TaskGroup != p.group || known && old.ModifyIndex > a.ModifyIndex {
		return
	}
	p.allocs[a.ID] = a
	if a.over() {
		delete(p.allocs, a.ID)
	}
}

func (p *picture) setNode(n node) {
	if old, known := p.nodes[n.ID]; !known || old.ModifyIndex <= n.ModifyIndex {
		p.nodes[n.ID] = n
	}
}

// apply takes in an event. Of the job and its deployments only that they changed is taken from it: job is true then.
func (p *picture) apply(e *api.Event) (job bool, err error) {
	switch e.Topic {
	case api.TopicJob, api.TopicDeployment:
		return true, nil
	case api.TopicAllocation:
		a, err := payload[alloc](e, "Allocation")
		if err != nil {
			return false, err
		}
		p.setAlloc(a)
	case api.TopicNode:
		n, err := payload[node](e, "Node")
		if err != nil {
			return false, err
		}
		if p.setNode(n); e.Type == "NodeDeregistration" {
			delete(p.nodes, n.ID)
		}
	}
	return false, nil
}

func payload[T any](e *api.Event, name string) (T, error) {
	var out T
	b, err := json.Marshal(e.Payload[name])
	if err == nil {
		err = json.Unmarshal(b, &out)
	}
	if err != nil {
		return out, fmt.Errorf("an event of the topic %s cannot be read: %w", e.Topic, err)
	}
	return out, nil
}

// replaced reports whether an allocation at an index runs, or is to: where there is an unknown one besides, it is the other's replacement.
func (p *picture) replaced(index int) bool {
	for _, a := range p.allocs {
		if i, ok := a.index(); ok && i == index && !a.unknown() && a.DesiredStatus == api.AllocDesiredStatusRun {
			return true
		}
	}
	return false
}

// state is the picture as the scheduler takes it.
func (p *picture) state() scheduler.PoolState {
	out := scheduler.PoolState{Name: "Nomad job " + p.job, Elastic: p.elastic, Count: p.count, Min: p.min, Max: p.max, Version: p.version}
	if p.deployment != "" {
		out.Busy = "deployment " + short(p.deployment) + " of the job is active"
	}
	for _, a := range p.allocs {
		index, ok := a.index()
		if !ok || a.unknown() && p.replaced(index) {
			continue
		}
		m := scheduler.Member{Name: a.ID, Index: index, Since: time.Unix(0, a.CreateTime)}
		n, known := p.nodes[a.NodeID]
		switch {
		case a.DesiredStatus != api.AllocDesiredStatusRun:
			m.Leaving = "nomad stops its allocation " + short(a.ID)
		case known && n.draining():
			m.Leaving = "nomad drains the node " + n.Name
		case known && n.SchedulingEligibility == api.NodeSchedulingIneligible:
			m.Closed = "nomad has the node " + n.Name + " take nothing"
		}
		out.Members = append(out.Members, m)
	}
	slices.SortFunc(out.Members, func(a, b scheduler.Member) int {
		return cmp.Or(cmp.Compare(a.Index, b.Index), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// short is an id as Nomad's own command shows it.
func short(id string) string { return id[:min(len(id), 8)] }
