package fakenomad

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"

	"github.com/hashicorp/nomad/api"
)

// job is a registered job, with what tells whether its tasks must be replaced.
type job struct {
	*api.Job
	spec string
}

// specOf is what of a job makes its allocations what they are: all but counts and bounds.
func specOf(j *api.Job) string {
	var parts []any
	for _, g := range j.TaskGroups {
		parts = append(parts, *g.Name, g.Tasks, g.Networks, g.Constraints, g.Services)
	}
	b, err := json.Marshal(parts)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func (c *Cluster) readJob(r *http.Request) (any, *problem) {
	j := c.jobs[r.PathValue("id")]
	if j == nil {
		return nil, refuse(http.StatusNotFound, "job not found")
	}
	return j.Job, nil
}

// check refuses a job that Nomad would refuse.
func check(j *api.Job) *problem {
	if j == nil || j.ID == nil || *j.ID == "" {
		return refuse(http.StatusBadRequest, "Job must be specified")
	}
	j.Canonicalize()
	for _, g := range j.TaskGroups {
		if s := g.Scaling; s != nil && s.Max != nil && (int64(*g.Count) > *s.Max || s.Min != nil && int64(*g.Count) < *s.Min) {
			return refuse(http.StatusInternalServerError, "Task group %s validation failed: count is out of the bounds of scaling", *g.Name)
		}
		if s := g.Scaling; s != nil && s.Max == nil {
			return refuse(http.StatusInternalServerError, "Task group %s validation failed: Scaling policy invalid: maximum count must be specified", *g.Name)
		}
		for _, t := range g.Tasks {
			if t.Driver == "raw_exec" && len(t.VolumeMounts) > 0 {
				return refuse(http.StatusInternalServerError, "task driver raw_exec does not support volume mounts")
			}
		}
	}
	return nil
}

// conflict refuses a job whose index is not the one that is meant.
func (c *Cluster) conflict(id string, index uint64) *problem {
	old := c.jobs[id]
	switch {
	case old == nil && index > 0:
		return refuse(http.StatusInternalServerError, "%s %d: job does not exist", api.RegisterEnforceIndexErrPrefix, index)
	case old != nil && index == 0:
		return refuse(http.StatusInternalServerError, "%s 0: job already exists", api.RegisterEnforceIndexErrPrefix)
	case old != nil && *old.JobModifyIndex != index:
		return refuse(http.StatusInternalServerError, "%s %d: job exists with conflicting job modify index: %d", api.RegisterEnforceIndexErrPrefix, index, *old.JobModifyIndex)
	}
	return nil
}

func (c *Cluster) register(r *http.Request) (any, *problem) {
	req, p := read[api.JobRegisterRequest](r)
	if p == nil {
		p = check(req.Job)
	}
	if p == nil && req.EnforceIndex {
		p = c.conflict(*req.Job.ID, req.JobModifyIndex)
	}
	if p != nil {
		return nil, p
	}
	if old := c.jobs[*req.Job.ID]; old != nil && req.PreserveCounts {
		for _, g := range req.Job.TaskGroups {
			if was := old.LookupTaskGroup(*g.Name); was != nil {
				g.Count = was.Count
			}
		}
	}
	return c.put(req.Job), nil
}

// put stores a job's new version and lets the allocations follow.
func (c *Cluster) put(j *api.Job) *api.JobRegisterResponse {
	version, create := uint64(0), uint64(0)
	if old := c.jobs[*j.ID]; old != nil {
		version, create = *old.Version+1, *old.CreateIndex
	}
	index := c.touch("jobs")
	if create == 0 {
		create = index
	}
	no, status := false, "running"
	if j.Stop == nil {
		j.Stop = &no
	}
	j.Version, j.CreateIndex, j.ModifyIndex, j.JobModifyIndex, j.Status = &version, &create, &index, &index, &status
	c.jobs[*j.ID] = &job{Job: j, spec: specOf(j)}
	c.tell(index, api.TopicJob, "JobRegistered", *j.ID, nil, j)
	c.deploy(j)
	c.settle()
	return &api.JobRegisterResponse{EvalID: c.id("eval"), JobModifyIndex: index}
}

func (c *Cluster) deregister(r *http.Request) (any, *problem) {
	j := c.jobs[r.PathValue("id")]
	if j == nil {
		return nil, refuse(http.StatusNotFound, "job not found")
	}
	stopped := *j.Job
	yes := true
	stopped.Stop = &yes
	c.put(&stopped)
	c.cancel(*j.ID)
	if r.URL.Query().Get("purge") == "true" {
		delete(c.jobs, *j.ID)
		for _, a := range c.allocs {
			a.forgotten = a.forgotten || a.JobID == *j.ID
		}
	}
	return &api.JobDeregisterResponse{EvalID: c.id("eval")}, nil
}

func (c *Cluster) plan(r *http.Request) (any, *problem) {
	req, p := read[api.JobPlanRequest](r)
	if p == nil {
		p = check(req.Job)
	}
	if p != nil {
		return nil, p
	}
	out := &api.JobPlanResponse{Diff: &api.JobDiff{Type: "Added", ID: *req.Job.ID}}
	if old := c.jobs[*req.Job.ID]; old != nil {
		out.JobModifyIndex = *old.JobModifyIndex
		if out.Diff.Type = "Edited"; old.spec == specOf(req.Job) && reflect.DeepEqual(counts(old.Job), counts(req.Job)) {
			out.Diff.Type = "None"
		}
	}
	out.FailedTGAllocs = map[string]*api.AllocationMetric{}
	for _, g := range req.Job.TaskGroups {
		have := 0
		for _, a := range c.allocs {
			if a.JobID == *req.Job.ID && a.TaskGroup == *g.Name && a.wanted() {
				have++
			}
		}
		// Of several that have no place the first is looked for.
		if on, why := c.find(req.Job, g); have < *g.Count && on == nil {
			out.FailedTGAllocs[*g.Name] = why
		}
	}
	return out, nil
}

func counts(j *api.Job) map[string]string {
	out := map[string]string{}
	for _, g := range j.TaskGroups {
		b, _ := json.Marshal(g.Scaling)
		out[*g.Name] = fmt.Sprint(*g.Count, string(b))
	}
	return out
}

func (c *Cluster) scale(r *http.Request) (any, *problem) {
	req, p := read[api.ScalingRequest](r)
	if p != nil {
		return nil, p
	}
	id := r.PathValue("id")
	j := c.jobs[id]
	if j == nil {
		return nil, refuse(http.StatusNotFound, "job not found")
	}
	g := j.LookupTaskGroup(req.Target["Group"])
	switch {
	case g == nil:
		return nil, refuse(http.StatusBadRequest, "task group %q specified for scaling does not exist in job", req.Target["Group"])
	case req.Count == nil || *req.Count < 0:
		return nil, refuse(http.StatusBadRequest, "scaling action count can't be negative")
	}
	if s := g.Scaling; s != nil {
		if s.Min != nil && *req.Count < *s.Min {
			return nil, refuse(http.StatusBadRequest, "group count was less than scaling policy minimum: %d < %d", *req.Count, *s.Min)
		}
		if s.Max != nil && *req.Count > *s.Max {
			return nil, refuse(http.StatusBadRequest, "group count was greater than scaling policy maximum: %d > %d", *req.Count, *s.Max)
		}
	}
	switch {
	case c.active(id) != nil:
		return nil, refuse(http.StatusBadRequest, "job scaling blocked due to active deployment")
	case req.JobModifyIndex != 0 && req.JobModifyIndex != *j.JobModifyIndex:
		return nil, c.conflict(id, req.JobModifyIndex)
	}
	next, groups := *j.Job, make([]*api.TaskGroup, len(j.TaskGroups))
	n := int(*req.Count)
	for i, old := range j.TaskGroups {
		same := *old
		if groups[i] = &same; *old.Name == *g.Name {
			same.Count = &n
		}
	}
	next.TaskGroups = groups
	return c.put(&next), nil
}
