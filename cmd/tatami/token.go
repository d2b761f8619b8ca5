package main

import (
	"github.com/spf13/cobra"

	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
)

func newTokenCmd(a *app) *cobra.Command {
	sh := &cobra.Command{
		Use: "show", Short: "Print the token of the control API", Args: argCount(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			t, err := c.Token(cmd.Context())
			if err != nil {
				return err
			}
			return a.printToken(t)
		},
	}
	rotate := &cobra.Command{
		Use: "rotate", Short: "Replace the token; the old one and every dashboard session end", Args: argCount(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			t, err := c.RotateToken(cmd.Context())
			if err != nil {
				return err
			}
			return a.printToken(t)
		},
	}
	link := &cobra.Command{
		Use: "link", Short: "Print a link that opens the dashboard once", Args: argCount(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			l, err := c.DashboardLink(cmd.Context())
			if err != nil {
				return err
			}
			if a.machine() {
				return a.encode(l)
			}
			a.print("%s\n", orText(l.URL, l.Path))
			return nil
		},
	}
	return group("token", "The control API's token: show, rotate, link; and tokens of workers and callers: create, ls, revoke",
		sh, rotate, link, newTokenCreateCmd(a), newTokenLsCmd(a), newTokenRevokeCmd(a))
}

// printToken prints the token alone: it is what scripts want.
func (a *app) printToken(t string) error {
	if a.machine() {
		return a.encode(v1.Token{Token: t})
	}
	a.print("%s\n", t)
	return nil
}
