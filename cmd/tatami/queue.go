package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
)

func newQueueCmd(a *app) *cobra.Command {
	cmd := group("queue", "Queues: ls, show, cancel, dead, redrive, purge", newQueueLsCmd(a), newQueueShowCmd(a), newQueueCancelCmd(a),
		newQueueDeadCmd(a), newQueueRedriveCmd(a), newQueuePurgeCmd(a))
	cmd.Aliases = []string{"queues"}
	return cmd
}

func newQueueLsCmd(a *app) *cobra.Command {
	var namespace string
	cmd := &cobra.Command{
		Use: "ls", Short: "List the queues that are not empty", Args: argCount(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			queues, err := c.Queues(cmd.Context(), namespace)
			if err != nil {
				return err
			}
			now := time.Now()
			return list(a, queues, func(q v1.FunctionQueue) string { return q.Ref().String() }, []column[v1.FunctionQueue]{
				{head: "function", cell: func(q v1.FunctionQueue) string { return q.Ref().String() }},
				{head: "pending", num: true, cell: func(q v1.FunctionQueue) string { return fmt.Sprint(q.Pending) }},
				{head: "scheduled", num: true, cell: func(q v1.FunctionQueue) string { return fmt.Sprint(q.Scheduled) }},
				{head: "running", num: true, cell: func(q v1.FunctionQueue) string { return fmt.Sprint(q.Running) }},
				{head: "dead", num: true, cell: func(q v1.FunctionQueue) string { return fmt.Sprint(q.Dead) }},
				{head: "oldest", num: true, cell: func(q v1.FunctionQueue) string { return age(now, q.Oldest) }},
			}, "every queue is empty")
		},
	}
	cmd.Flags().StringVarP(&namespace, "namespace", "n", "", "queues of this namespace only")
	return cmd
}

func newQueueShowCmd(a *app) *cobra.Command {
	var state string
	var limit int
	cmd := &cobra.Command{
		Use: "show FUNCTION|INVOCATION", Short: "Show the invocations that wait for a function, or one invocation",
		Args: argCount(1, 1, "FUNCTION|INVOCATION"), ValidArgsFunction: a.completeFunctions,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			if strings.HasPrefix(args[0], "inv_") {
				inv, err := c.Invocation(cmd.Context(), functions.InvocationID(args[0]))
				if err != nil {
					return err
				}
				return show(a, inv, string(inv.ID), invocationFields(*inv))
			}
			ref, err := functions.ParseQueue(args[0])
			if err != nil {
				return err
			}
			waiting, err := c.QueueList(cmd.Context(), ref, functions.InvocationState(state), limit)
			if err != nil {
				return err
			}
			now := time.Now()
			return list(a, waiting, func(i v1.InvocationStatus) string { return string(i.ID) }, []column[v1.InvocationStatus]{
				{head: "invocation", cell: func(i v1.InvocationStatus) string { return string(i.ID) }},
				{head: "state", cell: func(i v1.InvocationStatus) string { return string(i.State) }},
				{head: "age", num: true, cell: func(i v1.InvocationStatus) string { return age(now, i.Accepted) }},
				{head: "attempts", num: true, cell: func(i v1.InvocationStatus) string { return fmt.Sprint(len(i.Attempts)) }},
				{head: "request", cell: func(i v1.InvocationStatus) string { return i.Method + " " + i.Path }},
				{head: "last error", cell: func(i v1.InvocationStatus) string { return lastError(i.Attempts) }},
			}, "no invocation of "+ref.String()+" waits or runs")
		},
	}
	cmd.Flags().StringVar(&state, "state", "", "invocations in this state only: accepted, scheduled, running or retry-wait")
	cmd.Flags().IntVar(&limit, "limit", 100, "how many at most")
	return cmd
}

func lastError(attempts []functions.Attempt) string {
	if len(attempts) == 0 {
		return ""
	}
	last := attempts[len(attempts)-1]
	switch {
	case last.Message != "":
		return last.Message
	case last.Error != "":
		return last.Error
	case last.Status >= 400:
		return fmt.Sprintf("status %d", last.Status)
	}
	return ""
}

func invocationFields(i v1.InvocationStatus) []field {
	status := ""
	if i.Status != 0 {
		status = fmt.Sprint(i.Status)
	}
	var attempts []string
	for _, t := range i.Attempts {
		attempts = append(attempts, attemptText(t))
	}
	return []field{
		{"invocation", string(i.ID)},
		{"function", i.Ref().String()},
		{"state", string(i.State)},
		{"reason", i.Reason},
		{"request", strings.TrimSpace(i.Method + " " + i.Path)},
		{"status", status},
		{"accepted", stamp(i.Accepted)},
		{"next attempt", stamp(i.Next)},
		{"deadline", stamp(i.Deadline)},
		{"finished", stamp(i.Finished)},
		{"attempts", strings.Join(attempts, "\n")},
	}
}

func attemptText(t functions.Attempt) string {
	outcome := fmt.Sprintf("status %d", t.Status)
	if t.Error != "" {
		outcome = t.Error + ": " + t.Message
	}
	cold := ""
	if t.Cold {
		cold = ", cold"
	}
	at := ""
	if t.Instance != "" {
		at = " (" + string(t.Instance) + ")"
	}
	return fmt.Sprintf("%d. %s, %s in %s%s%s", t.Number, t.Started.Local().Format("15:04:05"), outcome, brief(t.Ended.Sub(t.Started)), cold, at)
}
