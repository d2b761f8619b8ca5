package fakenomad

import (
	"net/http"

	"github.com/hashicorp/nomad/api"
)

// deploy begins a deployment of a job that says how it is updated. The one before ends.
func (c *Cluster) deploy(j *api.Job) {
	c.cancel(*j.ID)
	updated := j.Update != nil
	for _, g := range j.TaskGroups {
		updated = updated || g.Update != nil
	}
	if !updated || *j.Type != api.JobTypeService || *j.Stop {
		return
	}
	d := &api.Deployment{
		ID: c.id("deployment"), Namespace: c.cfg.Namespace, JobID: *j.ID, JobVersion: *j.Version, JobSpecModifyIndex: *j.JobModifyIndex, JobCreateIndex: *j.CreateIndex,
	}
	c.deployments = append(c.deployments, d)
	c.setDeployment(d, api.DeploymentStatusRunning)
}

func (c *Cluster) setDeployment(d *api.Deployment, status string) {
	d.Status = status
	d.ModifyIndex = c.touch("deployments")
	c.tell(d.ModifyIndex, api.TopicDeployment, "DeploymentStatusUpdate", d.ID, []string{d.JobID}, d)
}

// active is a job's deployment that goes on; nil where none does.
func (c *Cluster) active(id string) *api.Deployment {
	for _, d := range c.deployments {
		if d.JobID == id && d.Status == api.DeploymentStatusRunning {
			return d
		}
	}
	return nil
}

func (c *Cluster) cancel(id string) {
	if d := c.active(id); d != nil {
		c.setDeployment(d, api.DeploymentStatusCancelled)
	}
}

// finish ends the deployment of a job all of whose allocations run.
func (c *Cluster) finish(j *job) {
	d := c.active(*j.ID)
	if d == nil || c.held {
		return
	}
	for _, g := range j.TaskGroups {
		running := 0
		for _, a := range c.allocs {
			if a.JobID == *j.ID && a.TaskGroup == *g.Name && a.DesiredStatus == api.AllocDesiredStatusRun && a.well() && a.spec == j.spec {
				running++
			}
		}
		if running < *g.Count {
			return
		}
	}
	c.setDeployment(d, api.DeploymentStatusSuccessful)
}

func (c *Cluster) latestDeployment(r *http.Request) (any, *problem) {
	var last *api.Deployment
	for _, d := range c.deployments {
		if d.JobID == r.PathValue("id") {
			last = d
		}
	}
	return last, nil
}
