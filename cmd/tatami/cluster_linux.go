package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/internal/pki"
)

// clusterSetupCmds are those for the machines that servers run on.
func clusterSetupCmds(a *app) []*cobra.Command {
	return []*cobra.Command{newClusterSecretCmd(a), newClusterInitCmd(a), newClusterExportCmd(a)}
}

func newClusterSecretCmd(a *app) *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use: "secret --out FILE", Short: "Make the secret that the servers of a cluster have in common", Args: argCount(0, 0, ""),
		Long: "Writes a new certificate authority with its private key to a file that only its owner may read. Every server of the cluster gets the same file,\n" +
			"at its first start: whoever has it can be a server.",
		RunE: func(*cobra.Command, []string) error {
			authority, err := pki.NewAuthority(time.Now())
			if err != nil {
				return err
			}
			data, err := authority.Encode()
			if err != nil {
				return err
			}
			return a.writeClusterSecret(out, data)
		},
	}
	cmd.Flags().StringVar(&out, "out", "", "the file to write, which must not exist")
	return cmd
}

func newClusterInitCmd(a *app) *cobra.Command {
	var from, dir, out string
	cmd := &cobra.Command{
		Use: "init --from DIR --out FILE", Short: "Bring a server that stood alone into a cluster", Args: argCount(0, 0, ""),
		Long: "Prepares the first server of a cluster so that, when the servers run, it brings in what `tatami up` has stored: functions, revisions, quotas,\n" +
			"triggers, queued invocations, results, dead letters, artifacts, and the workers that joined. Stop `tatami up` before. Its directory stays as it is\n" +
			"until everything in it is in the cluster; from then on no server opens it. The secret that is written speaks for the old server too, so that its\n" +
			"workers stay: give it to every server, as that of tatami cluster secret.",
		Example: "  systemctl stop tatami\n" +
			"  tatami cluster init --from /var/lib/tatami --data-dir /var/lib/tatami-server --out cluster.secret\n" +
			"  tatami server --cluster prod --cluster-secret cluster.secret --data-dir /var/lib/tatami-server ...",
		RunE: func(*cobra.Command, []string) error {
			if from == "" {
				return fault.New(fault.CodeInvalidRequest, "--from: no data directory is named").WithField("from")
			}
			if err := checkOut(out); err != nil {
				return err
			}
			authority, err := bus.PrepareImport(from, dir)
			if err != nil {
				return err
			}
			return a.writeClusterSecret(out, authority)
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "data directory of the server that stood alone, such as "+upPlaces.data)
	cmd.Flags().StringVar(&dir, "data-dir", serverPlaces.data, "data directory of the cluster's first server")
	cmd.Flags().StringVar(&out, "out", "", "the file to write the servers' secret to, which must not exist")
	return cmd
}

// writeClusterSecret writes the authority that servers have in common.
func (a *app) writeClusterSecret(out string, authority []byte) error {
	if err := checkOut(out); err != nil {
		return err
	}
	if err := writeSecret(out, string(authority)); err != nil {
		return err
	}
	a.talk("copy %s to every server, and start each with --cluster-secret %s\n", out, out)
	return nil
}

// checkOut refuses a file that is not named, or is there.
func checkOut(out string) error {
	if out == "" {
		return fault.New(fault.CodeInvalidRequest, "--out: no file is named").WithField("out")
	}
	return checkNew("out", out)
}
