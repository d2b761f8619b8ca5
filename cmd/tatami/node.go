package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tatami-faas/tatami/functions"
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
			if err := list(a, nodes, nodeName, nodeColumns(time.Now()), "no node has reported yet; where workers join, tatami token create --node NAME makes a token for one"); err != nil || a.machine() || a.output == formatName {
				return err
			}
			pool, err := c.Pool(cmd.Context())
			if err == nil && pool.Name != "static" {
				a.talk("%s\n", pool.Text)
			}
			return err
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
			return show(a, n, n.Name, nodeFields(n))
		},
	}
	cmd := group("node", "Nodes: ls, show, cordon, drain, resume, compact, rm", ls, sh,
		newIntentCmd(a, "cordon", "Let a node take no further instance", functions.NodeCordoned),
		newIntentCmd(a, "drain", "Move the instances off a node: others are ready elsewhere first, then these end what runs", functions.NodeDrained),
		newIntentCmd(a, "resume", "Let a node take instances again", functions.NodeOpen), newCompactCmd(a), newNodeRmCmd(a))
	cmd.Aliases = []string{"nodes"}
	return cmd
}

func newIntentCmd(a *app, verb, short string, intent functions.NodeIntent) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: verb + " NODE", Short: short, Args: argCount(1, 1, "NODE"), ValidArgsFunction: a.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			n, err := c.SetNodeIntent(cmd.Context(), args[0], intent, reason)
			if err != nil {
				return err
			}
			if a.output != formatTable && a.output != formatWide {
				return show(a, n, n.Name, nil)
			}
			switch intent {
			case functions.NodeDrained:
				a.talk("%s drains; how far it is: tatami node show %s\n", n.Name, n.Name)
			case functions.NodeCordoned:
				a.talk("%s takes no further instance; to open it: tatami node resume %s\n", n.Name, n.Name)
			default:
				a.talk("%s takes instances\n", n.Name)
			}
			return nil
		},
	}
	if intent != functions.NodeOpen {
		cmd.Flags().StringVar(&reason, "reason", "", "why, for others to read")
	}
	return cmd
}

func nodeFields(n *v1.Node) []field {
	return []field{
		{"node", n.Name},
		{"id", string(n.ID)},
		{"pool", n.Pool},
		{"state", nodeState(*n)},
		{"drain", drainText(n.Drain)},
		{"platform", "linux/" + n.Architecture},
		{"labels", labelText(n.Labels)},
		{"lacks", lacksText(n.Lacks)},
		{"machine", fmt.Sprintf("cpu %s, memory %s", cores(n.Capacity.CPU), size(n.Capacity.Memory))},
		{"for functions", fmt.Sprintf("cpu %s, memory %s, %s", cores(n.Allocatable.CPU), size(n.Allocatable.Memory), many(n.Allocatable.Instances, "instance"))},
		{"reserved", fmt.Sprintf("cpu %s, memory %s, %s", cores(n.Reserved.CPU), size(n.Reserved.Memory), many(n.Reserved.Instances, "instance"))},
		{"used", fmt.Sprintf("cpu %s, memory %s, by everything on the machine", cores(n.CPUUsed), size(n.MemoryUsed))},
		{"artifacts", fmt.Sprintf("%d unpacked", len(n.Artifacts))},
		{"last report", age(time.Now(), n.LastSeen) + " ago"},
	}
}

func nodeState(n v1.Node) string {
	if n.Reason == "" {
		return n.State
	}
	return n.State + ": " + n.Reason
}

// drainText is one line on the whole, and one for each thing that is waited for.
func drainText(d *v1.NodeDrain) string {
	if d == nil {
		return ""
	}
	if d.Left == 0 {
		return "done: no instance is left"
	}
	return strings.Join(append([]string{fmt.Sprintf("%d of %s left", d.Left, many(d.From, "instance"))}, d.Waits...), "\n")
}

func labelText(labels map[string]string) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		out = append(out, k+"="+labels[k])
	}
	return strings.Join(out, ",")
}

// lacksText is one line for each feature.
func lacksText(lacks map[functions.Feature]string) string {
	var out []string
	for _, f := range slices.Sorted(maps.Keys(lacks)) {
		out = append(out, fmt.Sprintf("%s: %s", f, lacks[f]))
	}
	return strings.Join(out, "\n")
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
		{head: "pool", wide: true, cell: func(n v1.Node) string { return n.Pool }},
		{head: "seen", wide: true, num: true, cell: func(n v1.Node) string { return age(now, n.LastSeen) }},
		{head: "labels", wide: true, cell: func(n v1.Node) string { return labelText(n.Labels) }},
		{head: "reason", wide: true, cell: func(n v1.Node) string { return n.Reason }},
	}
}
