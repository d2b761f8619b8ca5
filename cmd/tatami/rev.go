package main

import (
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
)

func newRevCmd(a *app) *cobra.Command {
	ls := &cobra.Command{
		Use: "ls FUNCTION", Short: "List the revisions of a function, newest first", Args: argCount(1, 1, "FUNCTION"), ValidArgsFunction: a.completeFunctions,
		RunE: func(cmd *cobra.Command, args []string) error {
			ref, err := functions.ParseRef(args[0])
			if err != nil {
				return err
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			revs, err := c.Revisions(cmd.Context(), ref)
			if err != nil {
				return err
			}
			return list(a, revs, revisionName, revisionColumns(time.Now()), "no revisions")
		},
	}
	sh := &cobra.Command{
		Use: "show FUNCTION REVISION", Short: "Show a revision", Args: argCount(2, 2, "FUNCTION REVISION"), ValidArgsFunction: a.completeRevisions,
		RunE: func(cmd *cobra.Command, args []string) error {
			ref, err := functions.ParseRef(args[0])
			if err != nil {
				return err
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			r, err := c.Revision(cmd.Context(), ref, functions.RevisionID(args[1]))
			if err != nil {
				return err
			}
			fields := append([]field{
				{"revision", string(r.ID)},
				{"function", ref.String()},
				{"state", revisionState(*r)},
				{"reason", r.Reason},
				{"last lines", strings.Join(r.Logs, "\n")},
				{"created", stamp(r.Created)},
			}, configFields(r.Artifact, r.Config)...)
			return show(a, r, string(r.ID), fields)
		},
	}
	cmd := group("rev", "Revisions: ls, show", ls, sh)
	cmd.Aliases = []string{"revision", "revisions"}
	return cmd
}

func revisionState(r v1.Revision) string {
	if r.Live {
		return "live"
	}
	return string(r.State)
}

func revisionName(r v1.Revision) string { return string(r.ID) }

func revisionColumns(now time.Time) []column[v1.Revision] {
	return []column[v1.Revision]{
		{head: "revision", cell: revisionName},
		{head: "state", cell: revisionState},
		{head: "age", num: true, cell: func(r v1.Revision) string { return age(now, r.Created) }},
		{head: "artifact", cell: func(r v1.Revision) string { return r.Artifact.Name }},
		{head: "memory", num: true, cell: func(r v1.Revision) string { return size(r.Config.Limits.Memory) }},
		{head: "cpu", num: true, cell: func(r v1.Revision) string { return cores(r.Config.Limits.CPU) }},
		{head: "reason", cell: func(r v1.Revision) string { return r.Reason }},
		{head: "digest", wide: true, cell: func(r v1.Revision) string { return r.Artifact.Digest }},
	}
}
