package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/runtime/containerd"
	"github.com/tatami-faas/tatami/worker"
)

// workerPlaces are where `tatami worker` keeps its things; `tatami up` may run on the same machine.
var workerPlaces = places{config: "/etc/tatami/worker.yaml", data: "/var/lib/tatami-worker", run: "/run/tatami-worker"}

// workerConfig is the configuration of `tatami worker`. Every field is a flag, an environment variable TATAMI_* and a key of the config file.
type workerConfig struct {
	nodeConfig
	Join      string
	TokenFile string
	Listen    string
	Sweep     bool
}

func (c *workerConfig) flags(f *pflag.FlagSet) {
	c.nodeConfig.flags(f, workerPlaces)
	f.StringVar(&c.Join, "join", "", "where the server lets workers join, such as nats://127.0.0.1:4222; of a cluster, its servers, separated by commas")
	f.StringVar(&c.TokenFile, "token-file", "", "file with the token for joining, as tatami token create makes it, or "+bus.WorkerTokenFile+" in the server's data directory")
	f.BoolVar(&c.Sweep, "sweep", false, "run no worker: end what one that was killed has left running in these directories, and leave")
	f.StringVar(&c.Listen, "listen", "127.0.0.1:0", "address of this machine at which gateways reach the instances; port 0 picks a free one")
}

func (c *workerConfig) validate() error {
	if c.Sweep {
		return c.nodeConfig.validate()
	}
	if c.Join == "" {
		return fault.New(fault.CodeInvalidRequest, "--join: no server is named").WithField("join").
			WithHint("start one with `tatami up --nats-listen 127.0.0.1:4222`, and give the address that it prints; of a cluster, those of its servers, separated by commas")
	}
	if c.TokenFile == "" {
		return fault.New(fault.CodeInvalidRequest, "--token-file: no token is given").WithField("token-file").
			WithHint("make one with: tatami token create --node NAME --file FILE; or give the file %s of the server's data directory", bus.WorkerTokenFile)
	}
	for _, server := range strings.Split(c.Join, ",") {
		if err := bus.CheckAddress("join", strings.TrimPrefix(server, "nats://")); err != nil {
			return err
		}
	}
	if c.Listen == "" {
		return fault.New(fault.CodeInvalidRequest, "--listen: gateways could not reach the instances").WithField("listen")
	}
	return c.nodeConfig.validate()
}

// unreachable is the first server on another machine, by the addresses of this one, where the instances can be reached on this machine only; "" where there
// is none. Names are not looked up.
func (c *workerConfig) unreachable(own []net.Addr) string {
	if !isLoopback(c.Listen) {
		return ""
	}
	for _, server := range strings.Split(c.Join, ",") {
		server = strings.TrimPrefix(server, "nats://")
		host, _, err := net.SplitHostPort(server)
		ip := net.ParseIP(host)
		if err != nil || ip == nil || ip.IsLoopback() {
			continue
		}
		if !slices.ContainsFunc(own, func(a net.Addr) bool { n, ok := a.(*net.IPNet); return ok && n.IP.Equal(ip) }) {
			return server
		}
	}
	return ""
}

// token is what the worker joins with; empty where it has joined before, and the file is gone: a token for one worker is of no use any more then.
func (c *workerConfig) token(log *slog.Logger) (string, error) {
	if _, err := os.Stat(c.TokenFile); errors.Is(err, fs.ErrNotExist) && bus.HasJoined(c.DataDir) {
		log.Info("the token's file is gone; this worker has joined before, and is known by its own key", "file", c.TokenFile)
		return "", nil
	}
	return bus.ReadToken(c.TokenFile)
}

func newWorkerCmd(a *app) *cobra.Command {
	var cfg workerConfig
	cmd := &cobra.Command{
		Use:   "worker --join URL --token-file FILE",
		Short: "Run instances for a server",
		Long: "Run a worker with a containerd of its own for a server that was started with `tatami up --nats-listen`, or for those of a cluster.\n" +
			"It keeps its instances while the server is away and finds it again by itself. Started again on the same directories it adopts\n" +
			"the instances that still run. As a task of Nomad it takes the task's processors and memory for all that the machine has.",
		Example: "  tatami token create --node rack1 --file rack1.token     # where the server runs\n" +
			"  tatami worker --join nats://10.0.0.1:4222 --token-file rack1.token --listen 10.0.0.2:7000\n" +
			"  tatami worker --join nats://10.0.0.1:4222,nats://10.0.0.2:4222,nats://10.0.0.3:4222 --token-file rack1.token --listen 10.0.0.4:7000",
		Args: argCount(0, 0, ""),
	}
	cfg.flags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		log, err := settle(cmd, &cfg, workerPlaces, a.stderr)
		if err != nil {
			return err
		}
		if cfg.Sweep {
			return sweep(cmd.Context(), cfg, log, a.stdout)
		}
		given, err := readAllocation(os.Getenv, runtime.NumCPU())
		if err != nil {
			return err
		}
		if given != nil {
			cfg.grantOf(given)
		}
		return runWorker(cmd.Context(), cfg, log, a.stdout)
	}
	return cmd
}

// runWorker runs a joined worker until ctx ends.
func runWorker(ctx context.Context, cfg workerConfig, log *slog.Logger, stdout io.Writer) error {
	token, err := cfg.token(log)
	if err != nil {
		return err
	}
	cfg.setRuntime(log)
	defer cfg.keepAwake(log)()
	if err := cfg.makeDirs(); err != nil {
		return err
	}
	// A token for one worker is used up by joining: what would fail after it is looked at before.
	if err := bus.CheckFree(ctx, "listen", "gateways", cfg.Listen); err != nil {
		return err
	}
	if own, err := net.InterfaceAddrs(); err == nil {
		if server := cfg.unreachable(own); server != "" {
			log.Warn("a server on another machine cannot reach the instances: give --listen an address of this machine, such as 10.0.0.2:7000", "server", server, "listen", cfg.Listen)
		}
	}
	link, err := bus.Join(bus.JoinConfig{DataDir: cfg.DataDir, URL: cfg.Join, Token: token}, log)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		link.Close(ctx)
	}()
	node := link.Identity().Node
	wcfg := cfg.worker(node)
	wcfg.Listen, wcfg.TLS = cfg.Listen, link.ListenerTLS
	wcfg.Refused = link.Refused
	driver, err := cfg.driver(wcfg, workerCgroup(cfg.NodeName, node), link, log)
	if err != nil {
		return err
	}
	defer closeDriver(driver, log)
	w, err := worker.New(wcfg, driver, link, log)
	if err != nil {
		return err
	}
	defer cfg.announceStop(ctx, log)()
	// Whoever is no node any more leaves nothing running.
	membership := func(ctx context.Context) error {
		err := link.Run(ctx)
		if err != nil {
			w.Dismiss()
		}
		return err
	}
	parts := []part{
		{name: "containerd", run: driver.Run, ready: driver.Ready}, {name: "worker", run: w.Run, ready: w.Ready}, {name: "membership", run: membership},
	}
	return supervise(ctx, log, parts, func() {
		fmt.Fprintf(stdout, "tatami %s on %s, node %s\n", version, cfg.NodeName, node)
		fmt.Fprintf(stdout, "server     %s\n", cfg.Join)
		if link.Conn().IsConnected() {
			fmt.Fprintln(stdout, "ready      it shows in: tatami node ls")
		} else {
			fmt.Fprintln(stdout, "waiting    the server does not answer yet; then it shows in: tatami node ls")
		}
		notifySystemd(log)
	})
}

func closeDriver(d *containerd.Driver, log *slog.Logger) {
	if err := d.Close(); err != nil {
		log.Error("closing the driver", "err", err)
	}
}

// workerCgroup is the name of the cgroup above a joined worker's sandboxes. Several workers of one machine may have one name.
func workerCgroup(name string, node functions.NodeID) string {
	return cgroupName(name) + "-" + strings.TrimPrefix(string(node), "nod_")[:10]
}
