package main

import (
	"github.com/spf13/cobra"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
)

func newCompactCmd(a *app) *cobra.Command {
	nodes, dryRun := 1, false
	cmd := &cobra.Command{
		Use: "compact", Short: "Empty nodes whose instances fit elsewhere, to give them back", Args: argCount(0, 0, ""),
		Long: "Drains the emptiest nodes whose instances fit on others that run something already, as tatami node drain does: no running invocation is interrupted. " +
			"They take no instance until tatami node resume.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			p, err := c.Compact(cmd.Context(), nodes, dryRun)
			if err != nil {
				return err
			}
			if a.machine() {
				return a.encode(p)
			}
			if len(p.Nodes) == 0 {
				a.talk("no node's instances fit on the others that are in use\n")
				return nil
			}
			if a.output == formatName {
				for _, n := range p.Nodes {
					a.print("%s\n", clean(n.Name))
				}
				return nil
			}
			a.printPlan(p)
			return nil
		},
	}
	cmd.Flags().IntVar(&nodes, "nodes", 1, "nodes to empty at most")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say which, and what would move")
	return cmd
}

func (a *app) printPlan(p *v1.CompactPlan) {
	for _, n := range p.Nodes {
		a.print("%s can be given back: cpu %s, memory %s, %s move\n", clean(n.Name), cores(n.Reserved.CPU), size(n.Reserved.Memory), many(n.Reserved.Instances, "instance"))
		for _, m := range p.Moves {
			if m.From == n.Name {
				a.print("  %s of %s to %s\n", m.Instance, functions.Ref{Namespace: m.Namespace, Name: m.Function}, clean(m.To))
			}
		}
	}
	if p.Draining {
		a.talk("draining; how far it is: tatami node ls\n")
	}
}
