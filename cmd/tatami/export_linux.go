package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/scheduler/nomad"
)

func newClusterExportCmd(a *app) *cobra.Command {
	var cfg serverConfig
	var to string
	cmd := &cobra.Command{
		Use: "export --to DIR", Short: "Bring what a cluster has stored back to one machine", Args: argCount(0, 0, ""),
		Long: "Copies everything that the cluster has stored into a new data directory, with which `tatami up` runs alone: functions, revisions, quotas,\n" +
			"triggers, queued invocations, results, dead letters, artifacts, and those who may connect. Run it on one of the servers, of which\n" +
			"tatami server is stopped, with the flags or the configuration of that; most of the others have to run. Nobody leads meanwhile: what has\n" +
			"to be stored is refused, instances that run go on answering. At the end the cluster is over: its servers no longer lead, nor start.\n" +
			"Where it fails before that, the cluster goes on. The servers' directories stay as they are; remove them when you are sure.",
		Example: "  systemctl stop tatami-server\n" +
			"  tatami cluster export --to /var/lib/tatami --cluster prod --peers 10.0.0.1:6222,10.0.0.2:6222,10.0.0.3:6222 \\\n" +
			"    --cluster-listen 10.0.0.1:6222 --relay-listen 10.0.0.1:6223 --nats-listen 10.0.0.1:4222\n" +
			"  systemctl disable --now tatami-server     # on every server\n" +
			"  tatami up --data-dir /var/lib/tatami --nats-listen 10.0.0.1:4222",
	}
	if err := cfg.flags(cmd.Flags()); err != nil {
		// The names are this package's own: a test runs this.
		cmd.PreRunE = func(*cobra.Command, []string) error { return err }
	}
	cmd.Flags().StringVar(&to, "to", "", "data directory to make, such as "+upPlaces.data)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if to == "" {
			return fault.New(fault.CodeInvalidRequest, "--to: no data directory is named").WithField("to")
		}
		log, err := settle(cmd, &cfg, serverPlaces, a.stderr)
		if err != nil {
			return err
		}
		done, err := export(cmd.Context(), cfg, to, log)
		if err != nil {
			return err
		}
		a.print("%d records and %d objects are in %s\n", done.Records, done.Objects, to)
		a.talk("stop every server of the cluster, then: tatami up --data-dir %s --nats-listen %s; workers whose --join lacks nats://%[2]s are to be restarted with it\n", to, cfg.NATSListen)
		return nil
	}
	return cmd
}

// export has the cluster's store copied by one of its servers.
func export(ctx context.Context, cfg serverConfig, to string, log *slog.Logger) (bus.Exported, error) {
	if err := cfg.findPeers(ctx, nomad.FromEnvironment, log); err != nil {
		return bus.Exported{}, err
	}
	cluster, err := cfg.member()
	if err != nil {
		return bus.Exported{}, err
	}
	b, err := bus.Open(ctx, bus.Config{
		DataDir: cfg.DataDir, MaxStore: cfg.MaxStore, ResultTTL: cfg.ResultTTL, Listen: cfg.NATSListen, CertificateLife: cfg.CertLife, Cluster: cluster,
	}, log)
	if err != nil {
		return bus.Exported{}, fmt.Errorf("joining the cluster: %w", err)
	}
	done, err := b.Export(ctx, cfg.NodeName, to, controlTokenFile, bus.WorkerTokenFile)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if cerr := b.Close(ctx); err == nil {
		err = cerr
	}
	return done, err
}
