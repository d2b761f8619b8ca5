package main

import (
	"strings"
	"time"

	"github.com/spf13/cobra"

	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/internal/fault"
)

func newCertCmd(a *app) *cobra.Command {
	return group("cert", "Certificates between servers and workers: ls, rotate, revoke", newCertLsCmd(a), newCertRotateCmd(a), newCertRevokeCmd(a))
}

func newCertLsCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "List the certificates of servers and workers, and the authority that they are from", Args: argCount(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			certs, err := c.Certificates(cmd.Context())
			if err != nil {
				return err
			}
			if a.machine() {
				return a.encode(certs)
			}
			if err := list(a, certs.Certificates, func(c v1.Certificate) string { return c.Serial }, certColumns(), "there is no certificate yet"); err != nil {
				return err
			}
			a.talkRotation(certs)
			return nil
		},
	}
}

// talkRotation says how far a rotation is.
func (a *app) talkRotation(certs *v1.Certificates) {
	for _, x := range certs.Authorities {
		a.talk("authority %s %s, since %s\n", pinText(x.Pin), x.State, x.Since.Local().Format(time.DateTime))
	}
	if len(certs.Waits) > 0 {
		a.talk("the one before is trusted until these have followed: %s\n", strings.Join(certs.Waits, ", "))
	}
}

// pinText is the beginning of a long number.
func pinText(pin string) string { return pin[:min(len(pin), 12)] }

// certWho is whose a certificate is, for people.
func certWho(c v1.Certificate) string { return orText(c.Name, orText(string(c.Node), c.Server)) }

func certColumns() []column[v1.Certificate] {
	return []column[v1.Certificate]{
		{head: "serial", cell: func(c v1.Certificate) string { return c.Serial }},
		{head: "role", cell: func(c v1.Certificate) string { return c.Role }},
		{head: "of", cell: certWho},
		{head: "state", cell: func(c v1.Certificate) string { return c.State }},
		{head: "until", cell: func(c v1.Certificate) string {
			if c.Until.IsZero() {
				return ""
			}
			return c.Until.Local().Format(time.DateTime)
		}},
		{head: "authority", cell: func(c v1.Certificate) string { return pinText(c.Authority) }},
		{head: "node", wide: true, cell: func(c v1.Certificate) string { return string(c.Node) }},
	}
}

func newCertRotateCmd(a *app) *cobra.Command {
	var now bool
	cmd := &cobra.Command{
		Use: "rotate", Short: "Replace the certificate authority, while everything runs", Args: argCount(0, 0, ""),
		Long: "Makes another authority, at every server of a cluster. Servers and workers get certificates of it within seconds; no connection ends. The one before is\n" +
			"trusted until all of them have followed, those that are away included; then it is retired, and tokens of before let nobody join any more.\n" +
			"Whoever is away for longer than a certificate lives is not waited for.\n\n" +
			"With --now nobody is waited for: that is for a key that others may have. Workers that are away then need a new token, and servers the new secret:\n" +
			"ca.pem of another server's data directory, as --cluster-secret. During a rotation --now ends the wait.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			certs, err := c.RotateAuthority(cmd.Context(), now)
			if err != nil {
				return err
			}
			if a.machine() {
				return a.encode(certs)
			}
			a.talkRotation(certs)
			a.talk("how far it is: tatami cert ls\n")
			return nil
		},
	}
	cmd.Flags().BoolVar(&now, "now", false, "trust the authority before no longer from this moment on")
	return cmd
}

func newCertRevokeCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "revoke SERIAL|NODE", Short: "Revoke a worker's certificate: it is cut off at once, and its node removed for good", Args: argCount(1, 1, "SERIAL|NODE"),
		ValidArgsFunction: a.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			certs, err := c.Certificates(cmd.Context())
			if err != nil {
				return err
			}
			node := args[0]
			for _, x := range certs.Certificates {
				if x.Serial != args[0] {
					continue
				}
				if x.Role == "server" {
					return fault.New(fault.CodeInvalidRequest, "%s is the certificate of the server %s: whoever has that has the authority's key", pinText(x.Serial), x.Server).
						WithHint("stop that server, take it out of the others' --peers, and replace the authority: tatami cert rotate --now")
				}
				node = string(x.Node)
			}
			if err := c.RemoveNode(cmd.Context(), node, true); err != nil {
				return err
			}
			a.talk("%s is cut off; what ran there is started elsewhere; to join again its worker needs another data directory and a token\n", args[0])
			return nil
		},
	}
}
