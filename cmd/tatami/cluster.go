package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
)

func newClusterCmd(a *app) *cobra.Command {
	cmd := group("cluster", "Servers of a cluster: ls, secret, init, export", newClusterLsCmd(a))
	cmd.AddCommand(clusterSetupCmds(a)...)
	return cmd
}

func newClusterLsCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "List the servers of the cluster, as the one that is asked sees them", Args: argCount(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			servers, err := c.Servers(cmd.Context())
			if err != nil {
				return err
			}
			return list(a, servers, func(s v1.Server) string { return s.Name }, serverColumns(time.Now()), "this server stands alone: it is of no cluster")
		},
	}
}

func serverColumns(now time.Time) []column[v1.Server] {
	since := func(t *time.Time) string {
		if t == nil {
			return "never"
		}
		return age(now, *t)
	}
	return []column[v1.Server]{
		{head: "server", cell: func(s v1.Server) string { return s.Name }},
		{head: "state", cell: func(s v1.Server) string { return s.State }},
		{head: "leads", cell: func(s v1.Server) string {
			if s.Leads {
				return "yes"
			}
			return ""
		}},
		{head: "rps", num: true, cell: gatewayCell(func(t *v1.GatewayTraffic) string { return rate(t.RPS) })},
		{head: "in flight", num: true, cell: gatewayCell(func(t *v1.GatewayTraffic) string { return fmt.Sprint(t.InFlight) })},
		{head: "requests", num: true, wide: true, cell: gatewayCell(func(t *v1.GatewayTraffic) string { return fmt.Sprint(t.Requests) })},
		{head: "errors", num: true, wide: true, cell: gatewayCell(func(t *v1.GatewayTraffic) string { return percent(t.Errors, t.Requests) })},
		{head: "cold", num: true, wide: true, cell: gatewayCell(func(t *v1.GatewayTraffic) string { return fmt.Sprint(t.ColdStarts) })},
		{head: "peer", cell: func(s v1.Server) string { return s.Peer }},
		{head: "functions at", cell: func(s v1.Server) string { return s.PublicURL }},
		{head: "up", num: true, cell: func(s v1.Server) string {
			if s.State != v1.ServerUp || s.Started == nil {
				return ""
			}
			return age(now, *s.Started)
		}},
		{head: "seen", num: true, cell: func(s v1.Server) string { return since(s.LastSeen) }},
		{head: "does not hear", cell: func(s v1.Server) string { return strings.Join(s.Misses, ", ") }},
		{head: "workers join at", wide: true, cell: func(s v1.Server) string { return s.NATS }},
		{head: "version", wide: true, cell: func(s v1.Server) string { return s.Version }},
		{head: "name", wide: true, cell: func(s v1.Server) string { return s.Server }},
	}
}

// gatewayCell shows a figure of a server's gateway, or that it did not tell it.
func gatewayCell(figure func(*v1.GatewayTraffic) string) func(v1.Server) string {
	return func(s v1.Server) string {
		if s.Traffic == nil {
			return "?"
		}
		return figure(s.Traffic)
	}
}

// serversText is one line on the servers of a cluster.
func serversText(servers []v1.Server) string {
	if len(servers) == 0 {
		return ""
	}
	up, leads := 0, "none"
	for _, s := range servers {
		if s.State == v1.ServerUp {
			up++
		}
		if s.Leads {
			leads = s.Name
		}
	}
	return fmt.Sprintf("%d of %d up, %s leads", up, len(servers), leads)
}
