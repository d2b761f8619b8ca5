package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/internal/fault"
)

func newTokenCreateCmd(a *app) *cobra.Command {
	var req v1.NodeTokenRequest
	var caller v1.CallerTokenRequest
	var file string
	var expires time.Duration
	cmd := &cobra.Command{
		Use: "create --node NAME | --caller NAME", Short: "Make a token with which one worker may join, once, or somebody may call functions over NATS",
		Args: argCount(0, 0, ""),
		Long: "With --node prints a token with which one worker may join, once. Once it has joined, the worker is known by a key of its own.\n" +
			"With --caller prints a URL, user and password included, with which any NATS client may call the functions of some namespaces.\n" +
			"Both can be written to a file that only its owner may read. Revoking the token cuts off whoever came with it.",
		Example: "  tatami token create --node rack1 --file rack1.token\n  tatami worker --join nats://127.0.0.1:4222 --token-file rack1.token\n" +
			"  nats --server $(tatami token create --caller shop --namespace default) request fn.default.hello work",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if (req.Node == "") == (caller.Caller == "") {
				return fault.New(fault.CodeInvalidRequest, "--node or --caller: say whom the token is for: a worker, or somebody who calls").WithField("node")
			}
			if req.Node != "" {
				if err := functions.ValidateNodeName("node", req.Node); err != nil {
					return err
				}
			}
			if file != "" {
				// What cannot be written is not made: it would be nobody's.
				if err := checkNew("file", file); err != nil {
					return err
				}
			}
			if caller.Caller != "" {
				return a.createCaller(cmd.Context(), caller, file)
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			req.Expires = functions.Duration(expires)
			t, err := c.CreateNodeToken(cmd.Context(), req)
			if err != nil {
				return err
			}
			if file != "" {
				if err := writeSecret(file, t.Token); err != nil {
					return err
				}
				t.Token = ""
			}
			if a.machine() {
				return a.encode(t)
			}
			if file == "" {
				a.print("%s\n", t.Token)
				file = "FILE"
			}
			a.talk("token %s, good until %s; on %s: tatami worker --join %s --token-file %s%s\n", t.ID, t.Expires.Local().Format(time.DateTime), t.Node, t.Join, file, listenText(t.Join))
			return nil
		},
	}
	cmd.Flags().StringVar(&req.Node, "node", "", "whose worker the token is for, for people to read")
	cmd.Flags().StringVar(&caller.Caller, "caller", "", "who may call functions over NATS, for people to read")
	cmd.Flags().StringSliceVar(&caller.Namespaces, "namespace", nil, "the namespaces whose functions the caller may call, or '*' for all (default default)")
	cmd.Flags().DurationVar(&expires, "expires", 24*time.Hour, "how long a worker's token waits for its worker, 1m to 720h")
	cmd.Flags().StringVar(&file, "file", "", "write the token to this file, which must not exist, instead of printing it")
	return cmd
}

// listenText is what a worker on another machine is started with besides; nothing where all servers are reached on their own machine only.
func listenText(join string) string {
	for _, server := range strings.Split(join, ",") {
		if !isLoopback(strings.TrimPrefix(server, "nats://")) {
			return " --listen ADDRESS:7000, an address of its own that the servers reach"
		}
	}
	return ""
}

// isLoopback reports whether an address can be reached on its own machine only.
func isLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	ip := net.ParseIP(host)
	return err == nil && (host == "localhost" || ip != nil && ip.IsLoopback())
}

// checkNew refuses a file that is there, or is in no directory.
func checkNew(flag, path string) error {
	if _, err := os.Lstat(path); err == nil {
		return fault.New(fault.CodeConflict, "--%s: %s is there already", flag, path).WithField(flag).WithHint("name another file")
	}
	if _, err := os.Stat(filepath.Dir(path)); err != nil {
		return fault.Wrap(fault.CodeInvalidRequest, err, "--%s: %s cannot be written", flag, path).WithField(flag).WithHint("make the directory first")
	}
	return nil
}

// writeSecret makes a file that only its owner may read.
func writeSecret(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fault.Wrap(fault.CodeInvalidRequest, err, "%s cannot be written", path)
	}
	_, err = fmt.Fprintln(f, text)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

func newTokenLsCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "List the tokens of workers and of callers", Args: argCount(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			tokens, err := tokenViews(cmd.Context(), c)
			if err != nil {
				return err
			}
			return list(a, tokens, func(t tokenView) string { return t.ID }, tokenColumns(time.Now()), "no token was made; tatami token create --node NAME, or --caller NAME, makes one")
		},
	}
}

func newTokenRevokeCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "revoke TOKEN", Short: "Revoke a token, by id; whoever came with it is cut off at once", Args: argCount(1, 1, "TOKEN"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			t, err := revokeToken(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			if a.output != formatTable && a.output != formatWide {
				return show(a, t, t.ID, nil)
			}
			switch {
			case t.Caller != "":
				a.talk("%s is revoked: %s may call no more\n", t.ID, t.Caller)
			case t.By == "":
				a.talk("%s lets nobody join\n", t.ID)
			default:
				a.talk("%s is revoked, and node %s removed\n", t.ID, t.By)
			}
			return nil
		},
	}
}

func newNodeRmCmd(a *app) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "rm NODE", Short: "Remove a node for good: its worker is cut off and cannot come back", Args: argCount(1, 1, "NODE"), ValidArgsFunction: a.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			if err := c.RemoveNode(cmd.Context(), args[0], force); err != nil {
				return err
			}
			a.talk("%s is removed; to join again its worker needs another data directory\n", args[0])
			return nil
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "although instances run on it: they are replaced elsewhere at once, and what they run is lost")
	return cmd
}
