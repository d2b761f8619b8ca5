package main

import (
	"encoding/json"
	"errors"
	"io"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/gateway/client"
	"github.com/tatami-faas/tatami/internal/fault"
)

func newLogsCmd(a *app) *cobra.Command {
	var q client.LogQuery
	var since, instance string
	var timestamps bool
	cmd := &cobra.Command{
		Use: "logs FUNCTION", Short: "Print a function's logs", Args: argCount(1, 1, "FUNCTION"), ValidArgsFunction: a.completeFunctions,
		Long: "Prints what the function's instances wrote to stdout and stderr, those that are gone included. On a terminal each line begins with\n" +
			"its time and instance; elsewhere only with --timestamps. With -o json each line is an object, with -o yaml an item.",
		RunE: func(cmd *cobra.Command, args []string) error {
			ref, err := functions.ParseRef(args[0])
			if err != nil {
				return err
			}
			if q.Since, err = sinceTime(since, time.Now()); err != nil {
				return err
			}
			if q.Tail < 0 {
				return fault.New(fault.CodeInvalidRequest, "--tail: %d is not a number of lines", q.Tail).WithField("tail")
			}
			q.Instance = functions.InstanceID(instance)
			c, err := a.connect()
			if err != nil {
				return err
			}
			line := func(l v1.LogLine) error { return a.printLog(l, timestamps) }
			if q.Follow {
				err = c.FollowLogs(cmd.Context(), ref, q, line, a.lostLogs)
			} else {
				err = c.Logs(cmd.Context(), ref, q, line)
			}
			if errors.Is(err, syscall.EPIPE) {
				return nil // `| head` has enough
			}
			return err
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&q.Follow, "follow", "f", false, "go on with lines as they are written")
	f.StringVar(&since, "since", "", "leave out older lines: a duration such as 10m, or a time such as 2026-01-31T12:00:00Z")
	f.IntVar(&q.Tail, "tail", 0, "how many lines at most (default all that are kept)")
	f.StringVar(&instance, "instance", "", "lines of this instance only")
	f.BoolVarP(&timestamps, "timestamps", "t", false, "begin each line with its time and instance")
	return cmd
}

// lostLogs says that the stream of lines was lost, or is back.
func (a *app) lostLogs(err error) {
	if err != nil {
		a.say("%s; waiting for the server (Ctrl-C ends)\n", cleanLines(err.Error()))
		return
	}
	a.say("the server is back; the log goes on\n")
}

// sinceTime reads a duration before now, or a time.
func sinceTime(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	return time.Time{}, fault.New(fault.CodeInvalidRequest, "--since: %q is neither a duration nor a time", s).WithField("since").
		WithHint("write 10m, 1h30m or 2026-01-31T12:00:00Z")
}

func (a *app) printLog(l v1.LogLine, timestamps bool) error {
	var line string
	switch {
	case a.machine():
		b, err := json.Marshal(l)
		if err != nil {
			return err
		}
		line = string(b)
		if a.output == formatYAML {
			line = "- " + line // a list that grows; JSON is YAML
		}
	case a.outTTY:
		head := l.Time.Local().Format("15:04:05.000") + " " + shortID(l.Instance)
		line = a.paint(true, dim, head) + " " + clean(l.Text)
		if l.Stream == "stderr" {
			line = a.paint(true, dim, head) + " " + a.paint(true, amber, clean(l.Text))
		}
	case timestamps:
		line = l.Time.UTC().Format(time.RFC3339Nano) + " " + string(l.Instance) + " " + l.Text
	default:
		line = l.Text
	}
	_, err := io.WriteString(a.stdout, line+"\n")
	return err
}

// shortID is enough of an id to tell a few instances apart.
func shortID(id functions.InstanceID) string {
	if len(id) > 9 {
		return string(id[:9])
	}
	return string(id)
}
