package fakenomad

import (
	"net/http"

	"github.com/hashicorp/nomad/api"
)

// services lists where a service is: one registration for each allocation that runs. Ports are those that the group asks for by number.
func (c *Cluster) services(name string) []*api.ServiceRegistration {
	out := []*api.ServiceRegistration{}
	for _, a := range c.allocs {
		if a.ClientStatus != api.AllocClientStatusRunning {
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
