package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tatami-faas/tatami/gateway/api"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/scheduler/nomad"
)

// serverPlaces are where `tatami server` keeps its things; the CLI finds its socket where it finds that of `tatami up`.
var serverPlaces = places{config: "/etc/tatami/server.yaml", data: "/var/lib/tatami-server", run: "/run/tatami"}

// serverConfig is the configuration of `tatami server`. Every field is a flag, an environment variable TATAMI_* and a key of the config file.
type serverConfig struct {
	upConfig
	Cluster       string
	Peers         []string
	PeersService  string
	PeersCount    int
	ClusterListen string
	ClusterSecret string
	RelayListen   string
	LameDuck      time.Duration
}

// workerFlags are those of `tatami up` that are about its own worker.
var workerFlags = []string{
	"no-worker", "containerd-address", "label", "grant-cpu", "grant-memory", "reserve-cpu", "reserve-memory", "max-instances", "sandbox-pool", "precreated", "freeze-after",
	"keep-instances", "user-namespaces", "egress-range", "egress-allow", "egress-dns",
}

func (c *serverConfig) flags(f *pflag.FlagSet) error {
	c.flagsAt(f, serverPlaces)
	for _, name := range workerFlags {
		if err := f.MarkHidden(name); err != nil {
			return err
		}
	}
	f.StringVar(&c.Cluster, "cluster", "", "name of the cluster")
	f.StringSliceVar(&c.Peers, "peers", nil, "addresses at which the three or five servers reach each other, this one included, the same on all of them, such as 10.0.0.1:6222,10.0.0.2:6222,10.0.0.3:6222")
	f.StringVar(&c.PeersService, "peers-service", "", "service of Nomad's by which the servers find each other, instead of --peers")
	f.IntVar(&c.PeersCount, "peers-count", 3, "how many servers --peers-service is of, three or five")
	f.StringVar(&c.ClusterListen, "cluster-listen", "", "which of the peers this server is")
	f.StringVar(&c.ClusterSecret, "cluster-secret", "", "file with what the servers have in common, as tatami cluster secret makes it; needed at the first start")
	f.StringVar(&c.RelayListen, "relay-listen", "", "address at which the other servers hand requests on to this one, such as 10.0.0.1:6223")
	f.DurationVar(&c.LameDuck, "lame-duck", time.Second, "how long a server that stops still takes requests while /readyz fails: longer than the interval at which load balancers ask for that")
	return nil
}

func (c *serverConfig) validate() error {
	c.NoWorker = true
	for _, f := range []struct{ flag, value, why, example string }{
		{"cluster", c.Cluster, "the cluster has no name", "prod"},
		{"peers", strings.Join(c.Peers, ",") + c.PeersService, "nobody says who the servers are", "10.0.0.1:6222,10.0.0.2:6222,10.0.0.3:6222"},
		{"cluster-listen", c.ClusterListen, "nobody says which of the peers this server is", "10.0.0.1:6222"},
		{"relay-listen", c.RelayListen, "the other servers could not hand requests on to this one", "10.0.0.1:6223"},
	} {
		if f.value == "" {
			return fault.New(fault.CodeInvalidRequest, "--%s: %s", f.flag, f.why).WithField(f.flag).WithHint("such as --%s %s; see tatami server --help", f.flag, f.example)
		}
	}
	if c.NATSListen == "" {
		return fault.New(fault.CodeInvalidRequest, "--nats-listen: no worker could join, and servers of a cluster run no instances").WithField("nats-listen").
			WithHint("give an address of this machine: --nats-listen 10.0.0.1:4222")
	}
	if c.PeersService != "" && len(c.Peers) > 0 {
		return fault.New(fault.CodeInvalidRequest, "--peers-service: the peers are named already").WithField("peers-service").WithHint("give --peers or --peers-service")
	}
	if c.PeersService != "" && c.PeersCount != 3 && c.PeersCount != 5 {
		return fault.New(fault.CodeInvalidRequest, "--peers-count: %d servers: three or five agree on what is stored", c.PeersCount).WithField("peers-count")
	}
	if err := bus.CheckAddress("relay-listen", c.RelayListen); err != nil {
		return err
	}
	return c.upConfig.validate()
}

// checkFree reports an address at which this server could not listen. It would find that out only when the others are there.
func (c *serverConfig) checkFree(ctx context.Context) error {
	for _, l := range []struct{ flag, who, addr string }{
		{"relay-listen", "the other servers", c.RelayListen}, {"public-addr", "callers", c.PublicAddr}, {"control-addr", "operators", c.ControlAddr},
	} {
		if l.addr == "" {
			continue
		}
		if err := bus.CheckFree(ctx, l.flag, l.who, l.addr); err != nil {
			return err
		}
	}
	return nil
}

// member is the server's part of the cluster.
func (c *serverConfig) member() (*bus.ClusterConfig, error) {
	out := &bus.ClusterConfig{
		Name: c.Cluster, Listen: c.ClusterListen, Peers: c.Peers,
		About: bus.ServerInfo{Name: c.NodeName, Public: "http://" + c.PublicAddr, Version: version},
	}
	if c.ClusterSecret == "" {
		return out, nil
	}
	info, err := os.Stat(c.ClusterSecret)
	if err == nil && info.Mode().Perm()&0o077 != 0 {
		return nil, fault.New(fault.CodeInvalidRequest, "others may read the secret in %s", c.ClusterSecret).WithField("cluster-secret").WithHint("chmod 600 %s", c.ClusterSecret)
	}
	if err == nil {
		out.Authority, err = os.ReadFile(c.ClusterSecret)
	}
	if err != nil {
		return nil, fault.Wrap(fault.CodeInvalidRequest, err, "the cluster's secret cannot be read").WithField("cluster-secret").
			WithHint("make it once, with tatami cluster secret --out FILE, and give the same file to every server")
	}
	return out, nil
}

func newServerCmd(a *app) *cobra.Command {
	var cfg serverConfig
	cmd := &cobra.Command{
		Use:   "server --cluster NAME --peers A,B,C",
		Short: "Run a server of a cluster",
		Long: "Run one of the three or five servers of a cluster: gateway, store, and, while it leads, scheduler and queue. The servers hold every function,\n" +
			"queued invocation and result together; while most of them run nothing is lost, and each goes on calling functions whichever leads.\n" +
			"Instances run on workers that join: tatami worker --join.",
		Example: "  tatami cluster secret --out cluster.secret     # once; the same file for every server\n" +
			"  tatami server --cluster prod --peers 10.0.0.1:6222,10.0.0.2:6222,10.0.0.3:6222 --cluster-listen 10.0.0.1:6222 \\\n" +
			"    --relay-listen 10.0.0.1:6223 --nats-listen 10.0.0.1:4222 --public-addr 10.0.0.1:8080 --cluster-secret cluster.secret",
		Args: argCount(0, 0, ""),
	}
	if err := cfg.flags(cmd.Flags()); err != nil {
		// The names are this file's own: a test runs this.
		cmd.PreRunE = func(*cobra.Command, []string) error { return err }
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		log, err := settle(cmd, &cfg, serverPlaces, a.stderr)
		if err != nil {
			return err
		}
		return runServer(cmd.Context(), cfg, log, a.stdout)
	}
	return cmd
}

// runServer runs a server of a cluster until ctx ends.
func runServer(ctx context.Context, cfg serverConfig, log *slog.Logger, stdout io.Writer) error {
	cfg.setRuntime(log)
	defer cfg.keepAwake(log)()
	if err := cfg.makeDirs(); err != nil {
		return err
	}
	if err := cfg.checkFree(ctx); err != nil {
		return err
	}
	if err := cfg.findPeers(ctx, nomad.FromEnvironment, log); err != nil {
		return err
	}
	m, err := newMember(ctx, cfg, log)
	if err != nil {
		return err
	}
	defer m.close(ctx)
	defer cfg.announceStop(ctx, log)()
	return supervise(ctx, log, m.parts(), func() {
		addrs := m.gateway.Addrs()
		fmt.Fprintf(stdout, "tatami %s on %s, server %s of cluster %s\n", version, cfg.NodeName, m.bus.Identity().ServerName, cfg.Cluster)
		fmt.Fprintf(stdout, "functions  %s/fn/NAME\n", api.LocalURL("http://"+addrs.Public))
		fmt.Fprintf(stdout, "control    unix://%s\n", filepath.Join(cfg.RunDir, "control.sock"))
		fmt.Fprintf(stdout, "workers    %s (token in %s)\n", m.bus.ListenURL(), filepath.Join(cfg.DataDir, bus.WorkerTokenFile))
		fmt.Fprintln(stdout, "ready      deploy with: tatami deploy DIRECTORY")
		notifySystemd(log)
	})
}
