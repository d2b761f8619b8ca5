package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/tatami-faas/tatami/gateway/api"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/obs"
)

func newUpCmd(a *app) *cobra.Command {
	var cfg upConfig
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run the whole system on this machine",
		Long: "Run gateway, scheduler, worker, queue and containerd in one process.\n" +
			"Ctrl-C drains and stops the instances; a second Ctrl-C ends at once. Started again on the same directories it has every function,\n" +
			"queued invocation and result, and adopts the instances that still run.",
		Args: argCount(0, 0, ""),
	}
	cfg.flags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		log, err := settle(cmd, &cfg, upPlaces, a.stderr)
		if err != nil {
			return err
		}
		return up(cmd.Context(), cfg, log, a.stdout)
	}
	return cmd
}

// up runs the system until ctx ends.
func up(ctx context.Context, cfg upConfig, log *slog.Logger, stdout io.Writer) error {
	cfg.setRuntime(log)
	defer cfg.keepAwake(log)()
	if err := cfg.makeDirs(); err != nil {
		return err
	}
	sys, err := newSystem(ctx, cfg, log)
	if err != nil {
		return err
	}
	defer sys.close(ctx)
	defer cfg.announceStop(ctx, log)()
	return supervise(ctx, log, sys.parts(), func() { sys.announce(stdout) })
}

// announce tells people where the system is. The line that begins with "ready" comes last: programs wait for it.
func (s *system) announce(w io.Writer) {
	info := s.info()
	fmt.Fprintf(w, "tatami %s on %s, node %s\n", version, s.cfg.NodeName, s.bus.Identity().Node)
	fmt.Fprintf(w, "functions  %s/fn/NAME\n", api.LocalURL(info.PublicURL))
	fmt.Fprintf(w, "control    unix://%s\n", filepath.Join(s.cfg.RunDir, "control.sock"))
	if info.ControlURL != "" {
		path, expires := s.auth.Link()
		control := api.LocalURL(info.ControlURL)
		fmt.Fprintf(w, "control    %s (token in %s)\n", control, s.tokenFile())
		fmt.Fprintf(w, "dashboard  %s%s\n", control, path)
		s.log.Debug("dashboard link made", "expires", expires)
	}
	if url := s.bus.ListenURL(); url != "" {
		fmt.Fprintf(w, "nats       %s (workers join with the token in %s)\n", url, filepath.Join(s.cfg.DataDir, bus.WorkerTokenFile))
	}
	if sentence := s.bus.Durability(); sentence != "" {
		fmt.Fprintf(w, "warning    %s\n", sentence)
	}
	fmt.Fprintln(w, "ready      deploy with: tatami deploy DIRECTORY")
	notifySystemd(s.log)
}

// notifySystemd tells the service manager, if one asked, that the start is over (sd_notify(3)).
func notifySystemd(log *slog.Logger) {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return
	}
	conn, err := net.Dial("unixgram", socket)
	if err != nil {
		log.Warn("the service manager does not listen", obs.Err(err))
		return
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "READY=1"); err != nil {
		log.Warn("the service manager was not told of the start", obs.Err(err))
	}
}
