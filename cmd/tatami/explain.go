package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
)

func newExplainCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "explain FUNCTION|INSTANCE", Short: "Say why a function has its instances, or an instance is where it is",
		Args: argCount(1, 1, "FUNCTION|INSTANCE"), ValidArgsFunction: a.completeFunctions,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			var e *v1.Explanation
			if strings.HasPrefix(args[0], "ins_") {
				e, err = c.ExplainInstance(cmd.Context(), functions.InstanceID(args[0]))
			} else {
				var ref functions.Ref
				if ref, err = functions.ParseRef(args[0]); err == nil {
					e, err = c.ExplainFunction(cmd.Context(), ref)
				}
			}
			if err != nil {
				return err
			}
			if a.output != formatTable && a.output != formatWide {
				return show(a, e, args[0], nil)
			}
			a.printExplanation(e)
			return nil
		},
	}
}

// fewNodes is up to how many nodes are told one by one; -o wide tells of more.
const fewNodes = 8

func (a *app) printExplanation(e *v1.Explanation) {
	a.print("%s\n", a.paint(a.outTTY, bold, clean(e.Subject)))
	for _, l := range e.Lines {
		at := "        "
		if !l.At.IsZero() {
			at = l.At.Local().Format("15:04:05")
		}
		a.print("  %s  %s\n", a.paint(a.outTTY, dim, at), clean(l.Text))
	}
	if len(e.Kinds) > 0 {
		a.print("nodes by kind\n")
	}
	for _, k := range e.Kinds {
		mark := "·"
		if k.Fits > 0 {
			mark = "✔"
		}
		a.print("  %s %s of %s: %s\n", mark, many(k.Nodes, "node"), clean(k.Kind), clean(k.Reason))
	}
	if len(e.Kinds) > 0 && len(e.Nodes) > fewNodes && a.output != formatWide {
		e.Nodes = slices.DeleteFunc(e.Nodes, func(n v1.NodeVerdict) bool { return !n.Chosen })
	}
	if len(e.Nodes) > 0 {
		a.print("nodes\n")
	}
	for _, n := range e.Nodes {
		mark := "·"
		if n.Chosen {
			mark = "✔"
		}
		a.print("  %s %s: %s\n", mark, clean(n.Name), clean(n.Reason))
	}
	for _, t := range e.Try {
		a.print("try: %s\n", clean(t))
	}
}
