package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/internal/fault"
)

func newDoctorCmd(a *app) *cobra.Command {
	var dataDir, runDir string
	var ports []string
	cmd := &cobra.Command{
		Use: "doctor", Short: "Check this machine and the server, and say how to repair what is wrong", Args: argCount(0, 0, ""),
		Long: "Checks what running functions needs of this machine, what slows cold starts on it, and whether the server answers. It changes nothing. It works without a server, too.\n" +
			"Ends with 0 when nothing failed, warnings included, else with 1.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			server, status := a.checkServer(cmd.Context())
			up := status != nil
			if up && status.DataDir != "" && !cmd.Flags().Changed("data-dir") && a.local() {
				dataDir = status.DataDir
			}
			if up && a.local() && !cmd.Flags().Changed("run-dir") {
				runDir = filepath.Dir(strings.TrimPrefix(orText(a.server, a.socket), "unix://"))
			}
			checks := machineChecks(cmd.Context(), machine{dataDir: dataDir, runDir: runDir, ports: ports, serverUp: up})
			checks = append(checks, server...)
			return a.printChecks(checks)
		},
	}
	f := cmd.Flags()
	f.StringVar(&dataDir, "data-dir", "/var/lib/tatami", "the server's data directory")
	f.StringVar(&runDir, "run-dir", "/run/tatami", "the server's run directory")
	f.StringSliceVar(&ports, "port", []string{"127.0.0.1:8080", "127.0.0.1:8081"}, "addresses that the server is to listen on")
	return cmd
}

// machine is what machineChecks looks at.
type machine struct {
	dataDir, runDir string
	ports           []string
	// serverUp says that a server runs, and so holds its ports.
	serverUp bool
}

// local reports whether the server is reached over a socket of this machine.
func (a *app) local() bool {
	return a.server == "" || strings.HasPrefix(a.server, "unix://") || strings.HasPrefix(a.server, "/")
}

// checkServer asks the server for its own checks; its status is nil where it did not answer.
func (a *app) checkServer(ctx context.Context) ([]v1.Check, *v1.Status) {
	c, err := a.connect()
	if err != nil {
		return []v1.Check{{Name: "server", State: v1.CheckFail, Detail: err.Error(), Fix: hintOf(err)}}, nil
	}
	s, err := c.Status(ctx)
	if err != nil {
		state := v1.CheckFail
		if fault.KindOf(err) == fault.Unavailable {
			state = v1.CheckWarn // a machine may be looked at before the first start
		}
		return []v1.Check{{Name: "server", State: state, Detail: err.Error(), Fix: hintOf(err)}}, nil
	}
	out := []v1.Check{{Name: "server", State: v1.CheckOK, Detail: fmt.Sprintf("%s answers at %s, %s", s.Version.Version, c.Server(), many(s.Nodes, "node"))}}
	for _, w := range s.Warnings {
		out = append(out, v1.Check{Name: "server", State: v1.CheckWarn, Detail: w})
	}
	if s.Nodes == 0 {
		out = append(out, v1.Check{Name: "nodes", State: v1.CheckFail, Detail: "no node has reported", Fix: "look into the server's log for the worker's errors; where workers join: tatami token create --node NAME, and tatami worker --join on that machine"})
	}
	own, err := c.Doctor(ctx)
	if err != nil {
		return append(out, v1.Check{Name: "server checks", State: v1.CheckFail, Detail: err.Error(), Fix: hintOf(err)}), s
	}
	return append(out, own...), s
}

func hintOf(err error) string {
	if f := fault.From(err); f != nil {
		return f.Hint
	}
	return ""
}

func (a *app) printChecks(checks []v1.Check) error {
	failed, warned := 0, 0
	for _, c := range checks {
		switch c.State {
		case v1.CheckFail:
			failed++
		case v1.CheckWarn:
			warned++
		}
	}
	var result error
	if failed > 0 {
		result = exitError(fault.Internal.Exit())
	}
	if a.output == formatName {
		for _, c := range checks {
			a.print("%s\n", strings.ReplaceAll(c.Name, " ", "-"))
		}
		return result
	}
	if a.machine() {
		if err := a.encode(checks); err != nil {
			return err
		}
		return result
	}
	for _, c := range checks {
		mark, st := "✔", green
		switch c.State {
		case v1.CheckFail:
			mark, st = "✘", red
		case v1.CheckWarn:
			mark, st = "!", amber
		}
		a.print(" %s %s: %s\n", a.paint(a.outTTY, st, mark), c.Name, clean(c.Detail))
		if c.Fix != "" && c.State != v1.CheckOK {
			a.print("   fix: %s\n", clean(c.Fix))
		}
	}
	a.talk("%s, %d failed, %s\n", many(len(checks), "check"), failed, many(warned, "warning"))
	return result
}

func okCheck(name, format string, args ...any) v1.Check {
	return v1.Check{Name: name, State: v1.CheckOK, Detail: fmt.Sprintf(format, args...)}
}
