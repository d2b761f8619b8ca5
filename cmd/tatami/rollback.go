package main

import (
	"github.com/spf13/cobra"

	"github.com/tatami-faas/tatami/functions"
)

func newRollbackCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "rollback FUNCTION [REVISION]", Short: "Move the traffic back to an earlier revision",
		Long: "Moves the traffic to the revision, or to the one that had it before. The answer comes when it has the traffic; until then nothing changes.",
		Args: argCount(1, 2, "FUNCTION [REVISION]"), ValidArgsFunction: a.completeRevisions,
		RunE: func(cmd *cobra.Command, args []string) error {
			ref, err := functions.ParseRef(args[0])
			if err != nil {
				return err
			}
			var rev functions.RevisionID
			if len(args) == 2 {
				rev = functions.RevisionID(args[1])
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			p := a.newProgress()
			p.start("start")
			res, err := c.Rollback(cmd.Context(), ref, rev)
			if err != nil {
				p.fail()
				return err
			}
			p.end("%s", res.Revision)
			return a.printDeployed(res)
		},
	}
}
