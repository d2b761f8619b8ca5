package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tatami-faas/tatami/internal/fault"
)

// defaultSocket is where a server on this machine listens.
const defaultSocket = "/run/tatami/control.sock"

// Groups of verbs in the help.
const (
	groupShip    = "ship"
	groupLook    = "look"
	groupOperate = "operate"
)

func newRootCmd(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "tatami",
		Short: "Run functions in containers, from zero and back",
		Long: "Tatami runs functions: small web servers in containers that start when they are called and stop when they are not.\n" +
			"`tatami up` is the whole runtime on this machine; the other verbs talk to it.",
		Version:       describeVersion(buildVersion()),
		SilenceErrors: true, SilenceUsage: true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return a.prepare(cmd) },
	}
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fault.New(fault.CodeInvalidRequest, "%s", err).WithHint("%s --help", cmd.CommandPath())
	})
	f := root.PersistentFlags()
	f.StringVar(&a.server, "server", "", "control API: http://HOST:PORT, https://HOST:PORT or unix:///PATH (TATAMI_SERVER)")
	f.StringVar(&a.socket, "socket", defaultSocket, "control socket of a server on this machine (TATAMI_SOCKET)")
	f.StringVar(&a.tokenFile, "token-file", "", "file with the token for --server (TATAMI_TOKEN_FILE; TATAMI_TOKEN is the token itself)")
	f.StringVarP(&a.output, "output", "o", formatTable, "output: table, wide, json, yaml or name")
	f.BoolVarP(&a.quiet, "quiet", "q", false, "print results and errors only")
	f.BoolVar(&a.noColor, "no-color", false, "no colours (NO_COLOR)")
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats(), cobra.ShellCompDirectiveNoFileComp))

	root.AddGroup(&cobra.Group{ID: groupShip, Title: "Ship and use:"}, &cobra.Group{ID: groupLook, Title: "Look:"},
		&cobra.Group{ID: groupOperate, Title: "Operate:"})
	add := func(group string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add(groupOperate, serverCmds(a)...)
	add(groupShip, newInitCmd(a), newDeployCmd(a), newInvokeCmd(a), newLogsCmd(a), newRollbackCmd(a), newDeleteCmd(a))
	add(groupLook, newStatusCmd(a), newFnCmd(a), newRevCmd(a), newInstCmd(a), newNodeCmd(a), newQueueCmd(a), newReplayCmd(a), newTriggerCmd(a), newExplainCmd(a))
	add(groupOperate, newQuotaCmd(a), newTokenCmd(a), newCertCmd(a), newClusterCmd(a), newSimulateCmd(a), newDoctorCmd(a))
	root.AddCommand(newVersionCmd(a))
	root.SetHelpCommand(newHelpCmd())
	root.InitDefaultCompletionCmd()
	return root
}

// newHelpCmd is cobra's own, but a name that is not known is an error.
func newHelpCmd() *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND]", Short: "Explain a command",
		RunE: func(cmd *cobra.Command, args []string) error {
			about, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return fault.New(fault.CodeInvalidRequest, "%q is no command", strings.Join(args, " ")).WithHint("tatami --help")
			}
			about.InitDefaultHelpFlag()
			return about.Help()
		},
	}
}

// prepare completes the global flags from the environment and the user's configuration, and checks them.
func (a *app) prepare(cmd *cobra.Command) error {
	if f := cmd.Root().PersistentFlags(); f.Changed("socket") && !f.Changed("server") {
		// The command line names a socket: a server that the environment or the configuration names is not meant.
		if err := f.Set("server", "unix://"+a.socket); err != nil {
			return err
		}
	}
	file := ""
	if dir, err := os.UserConfigDir(); err == nil {
		file = filepath.Join(dir, "tatami", "config.yaml")
	}
	if err := applySettings(cmd.Root().PersistentFlags(), file, false); err != nil {
		return err
	}
	if os.Getenv("NO_COLOR") != "" {
		a.noColor = true
	}
	if !knownFormat(a.output) {
		return fault.New(fault.CodeInvalidRequest, "%q is no output format", a.output).WithField("output").
			WithHint("use -o table, wide, json, yaml or name")
	}
	a.ran = cmd.CommandPath()
	return nil
}

// group makes a command that only holds others.
func group(use, short string, subs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use: use, Short: short,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return fault.New(fault.CodeInvalidRequest, "%q is no command of %s", args[0], cmd.CommandPath()).
				WithHint("%s --help", cmd.CommandPath())
		},
	}
	c.AddCommand(subs...)
	return c
}

// argCount checks the number of arguments; names are what they are called in messages.
func argCount(lo, hi int, names string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= lo && (hi < 0 || len(args) <= hi) {
			return nil
		}
		what := "too many arguments"
		if len(args) < lo {
			what = "an argument is missing"
		}
		return fault.New(fault.CodeInvalidRequest, "%s: %s %s", what, cmd.CommandPath(), names).WithHint("%s --help", cmd.CommandPath())
	}
}

func (a *app) say(format string, args ...any) { fmt.Fprintf(a.stderr, format, args...) }

// talk is what a person may like to know; --quiet leaves it out.
func (a *app) talk(format string, args ...any) {
	if !a.quiet {
		a.say(format, args...)
	}
}
