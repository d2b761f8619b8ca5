package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/gateway/client"
	"github.com/tatami-faas/tatami/internal/fault"
)

// maxExecInput bounds what exec sends as standard input.
const maxExecInput = 4 << 20

func newInstCmd(a *app) *cobra.Command {
	cmd := group("inst", "Instances: ls, show, exec", newInstLsCmd(a), newInstShowCmd(a), newInstExecCmd(a))
	cmd.Aliases = []string{"instance", "instances"}
	return cmd
}

func newInstLsCmd(a *app) *cobra.Command {
	var f client.InstanceFilter
	cmd := &cobra.Command{
		Use: "ls [FUNCTION]", Short: "List instances", Args: argCount(0, 1, "[FUNCTION]"), ValidArgsFunction: a.completeFunctions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				ref, err := functions.ParseRef(args[0])
				if err != nil {
					return err
				}
				f.Namespace, f.Function = ref.Namespace, ref.Name
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			all, err := c.Instances(cmd.Context(), f)
			if err == nil && len(all) == 0 && len(args) == 1 {
				_, err = c.Function(cmd.Context(), functions.Ref{Namespace: f.Namespace, Name: f.Function}) // a misspelt name has no instances, either
			}
			if err != nil {
				return err
			}
			return list(a, all, instanceName, instanceColumns(time.Now()),
				"no instances run; a function starts one when it is called")
		},
	}
	cmd.Flags().BoolVar(&f.Gone, "gone", false, "those that ended lately, too")
	cmd.Flags().StringVarP(&f.Namespace, "namespace", "n", "", "instances of this namespace only")
	cmd.Flags().StringVar(&f.Node, "node", "", "instances on this node only, by name or id")
	return cmd
}

func instanceName(i v1.Instance) string { return string(i.ID) }

func instanceColumns(now time.Time) []column[v1.Instance] {
	return []column[v1.Instance]{
		{head: "instance", cell: instanceName},
		{head: "function", cell: func(i v1.Instance) string { return i.Ref().String() }},
		{head: "state", cell: instanceState},
		{head: "age", num: true, cell: func(i v1.Instance) string { return age(now, i.Started) }},
		{head: "slots", num: true, cell: func(i v1.Instance) string { return fmt.Sprintf("%d/%d", i.Held, i.Slots) }},
		{head: "memory", num: true, cell: func(i v1.Instance) string { return size(i.Usage.Memory) }},
		{head: "start", num: true, cell: func(i v1.Instance) string { return brief(startTime(i.Phases)) }},
		{head: "node", cell: func(i v1.Instance) string { return orText(i.NodeName, string(i.Node)) }},
		{head: "revision", wide: true, cell: func(i v1.Instance) string { return string(i.Revision) }},
		{head: "pid", wide: true, num: true, cell: func(i v1.Instance) string { return fmt.Sprint(i.PID) }},
		{head: "placement", wide: true, cell: func(i v1.Instance) string { return i.Placement }},
		{head: "reason", cell: func(i v1.Instance) string { return i.Reason }},
	}
}

// instanceState calls a ready instance that holds no slot idle.
func instanceState(i v1.Instance) string {
	if i.State == functions.InstanceReady && i.Held == 0 {
		return "idle"
	}
	return string(i.State)
}

func startTime(p functions.Phases) time.Duration {
	return (p.Place + p.Prepare + p.Create + p.Start + p.Ready).Std()
}

func newInstShowCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show INSTANCE", Short: "Show an instance", Args: argCount(1, 1, "INSTANCE"), ValidArgsFunction: a.completeInstances,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			i, err := c.Instance(cmd.Context(), functions.InstanceID(args[0]))
			if err != nil {
				return err
			}
			return show(a, i, string(i.ID), instanceFields(*i, time.Now()))
		},
	}
}

func instanceFields(i v1.Instance, now time.Time) []field {
	exit, pid := "", ""
	if i.Exit != nil {
		exit = fmt.Sprintf("code %d", i.Exit.Code)
		if i.Exit.OOM {
			exit += ", killed for want of memory"
		}
	}
	if i.PID != 0 {
		pid = fmt.Sprint(i.PID)
	}
	p := i.Phases
	state := instanceState(i) + " for " + age(now, i.Since)
	if i.Adopted {
		state += ", adopted after a restart"
	}
	return []field{
		{"instance", string(i.ID)},
		{"function", i.Ref().String()},
		{"revision", string(i.Revision)},
		{"state", state},
		{"reason", i.Reason},
		{"exit", exit},
		{"node", orText(i.NodeName, string(i.Node))},
		{"placement", i.Placement},
		{"slots", fmt.Sprintf("%d of %d held", i.Held, i.Slots)},
		{"reserved", fmt.Sprintf("cpu %s, memory %s", cores(i.Reserved.CPU), size(i.Reserved.Memory))},
		{"used", fmt.Sprintf("%s processor time, %s of memory, %d processes", brief(i.Usage.CPU.Std()), size(i.Usage.Memory), i.Usage.PIDs)},
		{"started", stamp(i.Started)},
		{"cold start", fmt.Sprintf("%s: place %s, prepare %s, create %s, start %s, ready %s", brief(startTime(p)), brief(p.Place.Std()),
			brief(p.Prepare.Std()), brief(p.Create.Std()), brief(p.Start.Std()), brief(p.Ready.Std()))},
		{"start path", startPath(p)},
		{"user", i.Phases.User},
		{"pid", pid},
		{"last lines", strings.Join(i.Logs, "\n")},
	}
}

// startPath is the way in which the instance's sandbox was started, with why it was not a faster one.
func startPath(p functions.Phases) string {
	if p.PathReason == "" {
		return p.Path
	}
	return p.Path + ", as " + p.PathReason
}

func newInstExecCmd(a *app) *cobra.Command {
	var stdin bool
	cmd := &cobra.Command{
		Use: "exec INSTANCE -- COMMAND [ARG...]", Short: "Run a process in an instance", Args: argCount(2, -1, "INSTANCE -- COMMAND [ARG...]"),
		ValidArgsFunction: a.completeInstances,
		Long:              "Runs a further process in the instance's sandbox, with the function's user, environment and limits. Its exit code becomes this program's.",
		RunE: func(cmd *cobra.Command, args []string) error {
			var in []byte
			if stdin {
				var err error
				read := func() ([]byte, error) { return io.ReadAll(io.LimitReader(a.stdin, maxExecInput+1)) }
				if in, err = await(cmd.Context(), read); err != nil {
					if cmd.Context().Err() != nil {
						return err
					}
					return fault.Wrap(fault.CodeInvalidRequest, err, "read standard input")
				}
				if len(in) > maxExecInput {
					return fault.New(fault.CodeBodyTooLarge, "standard input is larger than %d MiB", maxExecInput>>20)
				}
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			res, err := c.Exec(cmd.Context(), functions.InstanceID(args[0]), args[1:], in)
			if err != nil {
				return err
			}
			_, _ = a.stdout.Write(res.Stdout)
			_, _ = a.stderr.Write(res.Stderr)
			if res.ExitCode != 0 {
				return exitError(res.ExitCode)
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&stdin, "stdin", "i", false, "send standard input")
	return cmd
}
