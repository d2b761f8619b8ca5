package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
)

func newStatusCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show the system at a glance", Args: argCount(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			s, err := c.Status(cmd.Context())
			if err != nil {
				return err
			}
			if err := show(a, s, string(s.Node), statusFields(s, time.Now())); err != nil || a.machine() {
				return err
			}
			for _, w := range s.Warnings {
				a.say("%s %s\n", a.paint(a.errTTY, amber, "warning:"), clean(w))
			}
			return nil
		},
	}
}

func statusFields(s *v1.Status, now time.Time) []field {
	return []field{
		{"version", describeVersion(s.Version)},
		{"up", fmt.Sprintf("%s, since %s", age(now, s.Started), stamp(s.Started))},
		{"functions at", s.PublicURL},
		{"control at", s.ControlURL},
		{"domain", s.Domain},
		{"data", s.DataDir},
		{"cluster", s.Cluster},
		{"servers", serversText(s.Servers)},
		{"nodes", fmt.Sprint(s.Nodes)},
		{"functions", fmt.Sprint(s.Functions)},
		{"instances", fmt.Sprintf("%s, %d starting, %d draining", readyCount(s.Instances), s.Instances.Starting, s.Instances.Draining)},
		{"reserved", fmt.Sprintf("cpu %s of %s, memory %s of %s, %d of %d instances", cores(s.Reserved.CPU), cores(s.Capacity.CPU),
			size(s.Reserved.Memory), size(s.Capacity.Memory), s.Reserved.Instances, s.Capacity.Instances)},
		{"traffic", fmt.Sprintf("%s rps, %d in flight, %d waiting", rate(s.RPS), s.InFlight, s.Waiting)},
		{"queue", queueText(s.Queue, now)},
	}
}
