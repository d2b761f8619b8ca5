package api

import (
	"fmt"
	"strings"
	"time"

	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/internal/bus"
)

// ServersPath is where each server tells of the servers of its cluster, also while none leads.
const ServersPath = "/v1/servers"

// Servers are the servers of a cluster as the API shows them; leader is the name of the one that leads, traffic what their gateways saw.
func Servers(views []bus.ServerView, leader string, traffic Traffic) []v1.Server {
	out := make([]v1.Server, 0, len(views))
	for _, v := range views {
		s := v1.Server{
			Name: v.Name, Server: v.Server, State: v1.ServerMissing, Leads: v.Up && v.Server == leader,
			Peer: v.Peer, NATS: v.Clients, PublicURL: v.Public, Version: v.Version, Misses: v.Misses,
		}
		if v.Up {
			s.State = v1.ServerUp
		}
		if t, told := traffic.Servers[v.Peer]; told {
			s.Traffic = &t
		}
		if !v.Started.IsZero() {
			s.Started = &v.Started
		}
		if !v.Heard.IsZero() {
			s.LastSeen = &v.Heard
		}
		out = append(out, s)
	}
	return out
}

// serverWarnings are what an operator should know of the servers of a cluster.
func serverWarnings(servers []v1.Server, now time.Time) []string {
	var missing, out []string
	for _, s := range servers {
		switch {
		case s.State == v1.ServerMissing && s.LastSeen == nil:
			missing = append(missing, s.Name+" (never heard)")
		case s.State == v1.ServerMissing:
			missing = append(missing, fmt.Sprintf("%s (for %s)", s.Name, now.Sub(*s.LastSeen).Round(time.Second)))
		case len(s.Misses) > 0:
			out = append(out, fmt.Sprintf("server %s does not hear %s", s.Name, strings.Join(s.Misses, ", ")))
		}
	}
	if len(missing) > 0 {
		out = append(out, fmt.Sprintf("%d of %d servers are missing: %s; %s", len(missing), len(servers), strings.Join(missing, ", "), spare(len(servers), len(missing))))
	}
	if names := without(servers); len(names) > 0 {
		out = append(out, "traffic is without that of "+strings.Join(names, ", ")+", which did not tell theirs")
	}
	return out
}

// spare says how many servers more a cluster can do without.
func spare(servers, missing int) string {
	if left := (servers-1)/2 - missing; left > 0 {
		return fmt.Sprintf("%d more may fail", left)
	}
	return "when one more fails nothing is stored any longer"
}
