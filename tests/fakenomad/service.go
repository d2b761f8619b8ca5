package fakenomad

import (
	"context"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/hashicorp/nomad/api"
)

// services lists where a service is: one registration for each allocation that runs. Ports are those that the group asks for by number.
func (c *Cluster) services(name string) []*api.ServiceRegistration {
	out := []*api.ServiceRegistration{}
	for _, a := range c.allocs {
		// One that is to stop is taken out of its services first.
		if a.ClientStatus != api.AllocClientStatusRunning || a.DesiredStatus != api.AllocDesiredStatusRun {
			continue
		}
		for _, s := range a.group.Services {
			if s.Name != name {
				continue
			}
			out = append(out, &api.ServiceRegistration{
				ID: "_nomad-group-" + a.ID + "-" + name, ServiceName: name, Namespace: c.cfg.Namespace, NodeID: a.NodeID, JobID: a.JobID, AllocID: a.ID,
				Address: c.findNode(a.NodeID).Attributes[addressAttr], Port: portOf(a.group, s.PortLabel),
			})
		}
	}
	return out
}

func portOf(g *api.TaskGroup, label string) int {
	for _, n := range g.Networks {
		for _, p := range n.ReservedPorts {
			if p.Label == label {
				return p.Value
			}
		}
	}
	return 0
}

func (c *Cluster) readService(r *http.Request) (any, *problem) {
	return c.services(r.PathValue("name")), nil
}

// checks are the addresses that must answer before an allocation on a node is well, where its group's update goes by checks.
func checks(g *api.TaskGroup, on *node) (urls []string) {
	if g.Update == nil || g.Update.HealthCheck == nil || *g.Update.HealthCheck != "checks" {
		return nil
	}
	for _, s := range g.Services {
		for _, k := range s.Checks {
			urls = append(urls, "http://"+net.JoinHostPort(on.Attributes[addressAttr], strconv.Itoa(portOf(g, k.PortLabel)))+k.Path)
		}
	}
	return urls
}

// well reports whether an allocation counts as updated.
func (a *alloc) well() bool {
	return a.ClientStatus == api.AllocClientStatusRunning && (a.healthy || len(checks(a.group, &node{})) == 0)
}

// check asks until all of an allocation's checks have passed, or it is to end.
func (c *Cluster) check(a *alloc, on *node) {
	for _, url := range checks(a.group, on) {
		for !passes(url) {
			select {
			case <-time.After(50 * time.Millisecond):
			case <-a.stopping:
				return
			case <-c.stop:
				return
			}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	a.healthy = true
	c.settle()
}

func passes(url string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}
