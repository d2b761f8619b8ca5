package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
)

func newNodeCmd(a *app) *cobra.Command {
	ls := &cobra.Command{
		Use: "ls", Short: "List nodes", Args: argCount(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			nodes, err := c.Nodes(cmd.Context())
			if err != nil {
				return err
			}
			return list(a, nodes, nodeName, nodeColumns(time.Now()), "no node has reported yet")
		},
	}
	sh := &cobra.Command{
		Use: "show NODE", Short: "Show a node, by name or id", Args: argCount(1, 1, "NODE"), ValidArgsFunction: a.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			n, err := c.Node(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return show(a, n, n.Name, []field{
				{"node", n.Name},
				{"id", string(n.ID)},
				{"state", n.State},
				{"platform", "linux/" + n.Architecture},
				{"machine", fmt.Sprintf("cpu %s, memory %s", cores(n.Capacity.CPU), size(n.Capacity.Memory))},
				{"for functions", fmt.Sprintf("cpu %s, memory %s, %s", cores(n.Allocatable.CPU), size(n.Allocatable.Memory), many(n.Allocatable.Instances, "instance"))},
				{"reserved", fmt.Sprintf("cpu %s, memory %s, %s", cores(n.Reserved.CPU), size(n.Reserved.Memory), many(n.Reserved.Instances, "instance"))},
				{"used", fmt.Sprintf("cpu %s, memory %s, by everything on the machine", cores(n.CPUUsed), size(n.MemoryUsed))},
				{"artifacts", fmt.Sprintf("%d unpacked", len(n.Artifacts))},
				{"last report", age(time.Now(), n.LastSeen) + " ago"},
			})
		},
	}
	cmd := group("node", "Nodes: ls, show", ls, sh)
	cmd.Aliases = []string{"nodes"}
	return cmd
}

func nodeName(n v1.Node) string { return n.Name }

func nodeColumns(now time.Time) []column[v1.Node] {
	return []column[v1.Node]{
		{head: "node", cell: nodeName},
		{head: "state", cell: func(n v1.Node) string { return n.State }},
		{head: "instances", num: true, cell: func(n v1.Node) string { return fmt.Sprintf("%d/%d", n.Instances, n.Allocatable.Instances) }},
		{head: "cpu reserved", num: true, cell: func(n v1.Node) string { return cores(n.Reserved.CPU) + "/" + cores(n.Allocatable.CPU) }},
		{head: "memory reserved", num: true, cell: func(n v1.Node) string { return size(n.Reserved.Memory) + "/" + size(n.Allocatable.Memory) }},
		{head: "cpu used", num: true, cell: func(n v1.Node) string { return cores(n.CPUUsed) }},
		{head: "memory used", num: true, cell: func(n v1.Node) string { return size(n.MemoryUsed) }},
		{head: "platform", wide: true, cell: func(n v1.Node) string { return "linux/" + n.Architecture }},
		{head: "id", wide: true, cell: func(n v1.Node) string { return string(n.ID) }},
		{head: "seen", wide: true, num: true, cell: func(n v1.Node) string { return age(now, n.LastSeen) }},
		{head: "labels", wide: true, cell: func(n v1.Node) string {
			var out []string
			for _, k := range slices.Sorted(maps.Keys(n.Labels)) {
				out = append(out, k+"="+n.Labels[k])
			}
			return strings.Join(out, ",")
		}},
	}
}
