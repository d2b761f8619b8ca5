package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/gateway/client"
	"github.com/tatami-faas/tatami/internal/fault"
)

func newReplayCmd(a *app) *cobra.Command {
	var since, until, revision string
	var limit int
	cmd := &cobra.Command{
		Use: "replay FUNCTION|INVOCATION...", Short: "Run stored invocations again and show what they answer otherwise",
		Args: argCount(1, -1, "FUNCTION|INVOCATION..."), ValidArgsFunction: a.completeFunctions,
		Long: "Runs stored invocations once more, against a revision or what is live, and shows the difference of the answers: those named, or those of a\n" +
			"function that were accepted in a time and have ended. What is stored stays as it is, and the function gets the same Tatami-Invocation-Id, so that what it\n" +
			"does once for each is not done again. The requests of dead invocations are kept; for those of all, set queue: {keepRequests: true}.\n" +
			"Ends with 3 where an answer differs.",
		RunE: func(cmd *cobra.Command, args []string) error {
			now := time.Now()
			from, err := sinceTime(since, now)
			if err != nil {
				return err
			}
			to, err := sinceTime(until, now)
			if err != nil {
				return fault.New(fault.CodeInvalidRequest, "--until: %q is neither a duration nor a time", until).WithField("until").
					WithHint("write 10m, 1h30m or 2026-01-31T12:00:00Z")
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			ids, err := endedOf(cmd.Context(), c, args, from, to, limit)
			if err != nil {
				return err
			}
			differ := 0
			err = eachOf(a, ids, func(id functions.InvocationID) error {
				r, err := c.Replay(cmd.Context(), id, functions.RevisionID(revision))
				if err != nil {
					return err
				}
				if len(r.Differences) > 0 {
					differ++
				}
				if a.machine() {
					return a.encode(r)
				}
				a.printReplayed(r)
				return nil
			})
			if !a.machine() {
				a.talk("%s replayed, %d differ\n", many(len(ids), "invocation"), differ)
			}
			if err == nil && differ > 0 {
				err = exitError(exitPartial)
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&revision, "revision", "", "the revision to run them on; the live one where it is left out")
	f.StringVar(&since, "since", "24h", "of a function, leave out what was accepted earlier: a duration such as 10m, or a time such as 2026-01-31T12:00:00Z")
	f.StringVar(&until, "until", "", "of a function, leave out what was accepted then or later")
	f.IntVar(&limit, "limit", 100, "how many of a function at most, the latest")
	return cmd
}

// endedOf names the invocations that are meant: ids as they are, those of functions that have ended.
func endedOf(ctx context.Context, c *client.Client, args []string, from, to time.Time, limit int) ([]functions.InvocationID, error) {
	var ids []functions.InvocationID
	for _, s := range args {
		if strings.HasPrefix(s, "inv_") {
			ids = append(ids, functions.InvocationID(s))
			continue
		}
		ref, err := functions.ParseRef(s)
		if err != nil {
			return nil, err
		}
		ended, err := c.Ended(ctx, ref, from, to, limit)
		if err != nil {
			return nil, err
		}
		for _, st := range ended {
			// What was cancelled or never began gave nothing to compare with.
			if st.Status != 0 || st.State == functions.StateDead {
				ids = append(ids, st.ID)
			}
		}
	}
	return ids, nil
}

// printReplayed shows one invocation: a line where all is as it was, else what differs.
func (a *app) printReplayed(r *v1.Replayed) {
	a.print("%s  %s  %s  %s -> %s\n", r.Invocation, r.Ref(), r.Revision, outputText(&r.Before), outputText(&r.Now))
	for _, what := range r.Differences {
		switch what {
		case "state", "status":
		case "body":
			a.print("  body:\n")
			for _, line := range bodyDiff(&r.Before, &r.Now) {
				a.print("    %s\n", line)
			}
		default:
			a.print("  %s: %s -> %s\n", what, headerText(r.Before.Headers[what]), headerText(r.Now.Headers[what]))
		}
	}
}

func outputText(o *v1.Output) string {
	switch {
	case o.Status != 0:
		return fmt.Sprint(o.Status)
	case o.Reason != "":
		return string(o.State) + " (" + clean(o.Reason) + ")"
	}
	return string(o.State)
}

func headerText(values []string) string {
	if len(values) == 0 {
		return "none"
	}
	return clean(strings.Join(values, ", "))
}

// bodyDiff is the difference of two bodies, line by line where both are text.
func bodyDiff(before, now *v1.Output) []string {
	if !utf8.Valid(before.Body) || !utf8.Valid(now.Body) {
		return []string{"- " + bytesText(before.Body), "+ " + bytesText(now.Body)}
	}
	lines := diffLines(splitText(before.Body), splitText(now.Body))
	for i := range lines {
		lines[i] = clean(lines[i])
	}
	if before.Cut || now.Cut {
		lines = append(lines, "... only the beginning of it is compared")
	}
	return lines
}

func splitText(b []byte) []string {
	if len(b) == 0 {
		return nil
	}
	return strings.Split(string(bytes.TrimSuffix(b, []byte("\n"))), "\n")
}

func bytesText(b []byte) string {
	const shown = 48
	return fmt.Sprintf("%s, base64 %s", size(int64(len(b))), base64.StdEncoding.EncodeToString(b[:min(len(b), shown)]))
}
