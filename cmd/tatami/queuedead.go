package main

import (
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
)

func newQueueDeadCmd(a *app) *cobra.Command {
	var limit int
	cmd := &cobra.Command{
		Use: "dead FUNCTION|INVOCATION", Short: "List the dead letters of a function, or show one",
		Args: argCount(1, 1, "FUNCTION|INVOCATION"), ValidArgsFunction: a.completeFunctions,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			if strings.HasPrefix(args[0], "inv_") {
				d, err := c.DeadLetter(cmd.Context(), functions.InvocationID(args[0]))
				if err != nil {
					return err
				}
				return show(a, d, string(d.Invocation.ID), deadFields(d))
			}
			ref, err := functions.ParseQueue(args[0])
			if err != nil {
				return err
			}
			dead, err := c.DeadLetters(cmd.Context(), ref, limit)
			if err != nil {
				return err
			}
			now := time.Now()
			return list(a, dead, func(d v1.DeadLetter) string { return string(d.Invocation.ID) }, []column[v1.DeadLetter]{
				{head: "invocation", cell: func(d v1.DeadLetter) string { return string(d.Invocation.ID) }},
				{head: "died", num: true, cell: func(d v1.DeadLetter) string { return age(now, d.Died) }},
				{head: "attempts", num: true, cell: func(d v1.DeadLetter) string { return fmt.Sprint(len(d.Invocation.History)) }},
				{head: "request", cell: func(d v1.DeadLetter) string { return d.Invocation.Method + " " + d.Invocation.Path }},
				{head: "reason", cell: func(d v1.DeadLetter) string { return d.Reason }},
			}, ref.String()+" has no dead letters")
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 100, "how many at most")
	return cmd
}

func deadFields(d *v1.DeadLetter) []field {
	i := d.Invocation
	var attempts []string
	for _, t := range i.History {
		attempts = append(attempts, attemptText(t))
	}
	payload := string(i.Body)
	switch {
	case i.BodyRef != nil:
		payload = fmt.Sprintf("%s, kept apart", size(i.BodyRef.Size))
	case !utf8.Valid(i.Body):
		payload = "base64: " + base64.StdEncoding.EncodeToString(i.Body)
	}
	return []field{
		{"invocation", string(i.ID)},
		{"function", i.Ref().String()},
		{"of", string(i.Of)},
		{"reason", d.Reason},
		{"died", stamp(d.Died)},
		{"accepted", stamp(i.Accepted)},
		{"request", i.Method + " " + i.Path},
		{"attempts", strings.Join(attempts, "\n")},
		{"body", payload},
	}
}

func newQueueRedriveCmd(a *app) *cobra.Command {
	var limit int
	var revision string
	cmd := &cobra.Command{
		Use: "redrive FUNCTION|INVOCATION...", Short: "Hand dead invocations over again, as new ones", Args: argCount(1, -1, "FUNCTION|INVOCATION..."),
		ValidArgsFunction: a.completeFunctions,
		Long: "Hands invocations that died over again: those named, or all dead letters of a function, the latest first. Each is a new invocation with all its\n" +
			"attempts before it, on what is live then or on a revision of your choice, and its dead letter goes. Prints the ids of the new ones.",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			ids, err := deadOf(cmd.Context(), c, args, limit)
			if err != nil {
				return err
			}
			return eachOf(a, ids, func(id functions.InvocationID) error {
				r, err := c.Redrive(cmd.Context(), id, functions.RevisionID(revision))
				if err != nil {
					return err
				}
				if a.machine() {
					return a.encode(r)
				}
				a.print("%s\n", r.Invocation)
				return nil
			})
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 1000, "how many of a function at most")
	cmd.Flags().StringVar(&revision, "revision", "", "the revision to run them on; what is live at each attempt where it is left out")
	return cmd
}

// deadOf names the dead invocations that are meant: ids as they are, those of functions.
func deadOf(ctx context.Context, c *client.Client, args []string, limit int) ([]functions.InvocationID, error) {
	var ids []functions.InvocationID
	for _, s := range args {
		if strings.HasPrefix(s, "inv_") {
			ids = append(ids, functions.InvocationID(s))
			continue
		}
		ref, err := functions.ParseQueue(s)
		if err != nil {
			return nil, err
		}
		letters, err := c.DeadLetters(ctx, ref, limit)
		if err != nil {
			return nil, err
		}
		for _, d := range letters {
			ids = append(ids, d.Invocation.ID)
		}
	}
	return ids, nil
}

// purgeBatch is how many dead letters one request removes.
const purgeBatch = 1000

func newQueuePurgeCmd(a *app) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "purge FUNCTION", Short: "Remove the dead letters of a function", Args: argCount(1, 1, "FUNCTION"), ValidArgsFunction: a.completeFunctions,
		Long: "Removes the dead letters of a function for good. What waits in its queue stays. On a terminal it asks, unless --yes is given.",
		RunE: func(cmd *cobra.Command, args []string) error {
			ref, err := functions.ParseQueue(args[0])
			if err != nil {
				return err
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			if !yes {
				if err := a.confirm(cmd.Context(), fmt.Sprintf("remove the dead letters of %s?", ref)); err != nil {
					return err
				}
			}
			total := v1.Purged{}
			for {
				p, err := c.PurgeDead(cmd.Context(), ref, purgeBatch)
				if err != nil {
					return err
				}
				if total.Removed += p.Removed; p.Removed < purgeBatch {
					break
				}
			}
			if a.machine() {
				return a.encode(total)
			}
			a.talk("%s removed\n", many(total.Removed, "dead letter"))
			return nil
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}
