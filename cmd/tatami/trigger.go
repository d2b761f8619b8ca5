package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/gateway/client"
	"github.com/tatami-faas/tatami/internal/fault"
)

func newTriggerCmd(a *app) *cobra.Command {
	cmd := group("trigger", "What causes invocations besides calls: add, ls, show, rm, test, pause, resume",
		newTriggerAddCmd(a), newTriggerLsCmd(a), newTriggerShowCmd(a), newTriggerRmCmd(a), newTriggerTestCmd(a),
		newTriggerPauseCmd(a, "pause", "Pause triggers: they take nothing in", true),
		newTriggerPauseCmd(a, "resume", "Let paused triggers go on", false))
	cmd.Aliases = []string{"triggers"}
	return cmd
}

func triggerName(t v1.TriggerView) string { return t.Trigger.ID().String() }

func (a *app) completeTriggers(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return a.complete(cmd, func(ctx context.Context, c *client.Client) ([]string, error) {
		all, err := c.Triggers(ctx, "", "")
		return names(all, err, triggerName)
	})
}

// parseTriggerName reads NAME or NAME.NAMESPACE.
func parseTriggerName(s string) (functions.Ref, error) {
	id, err := functions.ParseRef(s)
	if f := fault.From(err); f != nil && f.Field == "function" {
		return id, fault.New(f.Code, "%q is no name of a trigger", s).WithField("trigger").WithHint("%s", f.Hint)
	}
	return id, err
}

func newTriggerLsCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "ls [FUNCTION]", Short: "List triggers", Args: argCount(0, 1, "[FUNCTION]"), ValidArgsFunction: a.completeFunctions,
		RunE: func(cmd *cobra.Command, args []string) error {
			var of functions.Ref
			if len(args) == 1 {
				var err error
				if of, err = functions.ParseRef(args[0]); err != nil {
					return err
				}
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			all, err := c.Triggers(cmd.Context(), of.Namespace, of.Name)
			if err != nil {
				return err
			}
			return list(a, all, triggerName, triggerColumns(time.Now()), "there are no triggers")
		},
	}
}

func triggerColumns(now time.Time) []column[v1.TriggerView] {
	return []column[v1.TriggerView]{
		{head: "trigger", cell: triggerName},
		{head: "kind", cell: func(t v1.TriggerView) string { return t.Kind }},
		{head: "function", cell: func(t v1.TriggerView) string { return t.Ref().String() }},
		{head: "state", cell: func(t v1.TriggerView) string { return t.Status.State }},
		{head: "accepted", num: true, cell: func(t v1.TriggerView) string { return count(t.Status.Accepted) }},
		{head: "last", num: true, cell: func(t v1.TriggerView) string { return age(now, t.Status.Last) }},
		{head: "filtered", num: true, wide: true, cell: func(t v1.TriggerView) string { return count(t.Status.Filtered) }},
		{head: "refused", num: true, wide: true, cell: func(t v1.TriggerView) string { return count(t.Status.Refused) }},
		{head: "source", cell: func(t v1.TriggerView) string { return sourceText(&t.Trigger) }},
	}
}

// sourceText is a trigger's source in a few words.
func sourceText(t *functions.Trigger) string {
	var parts []string
	if t.Event != nil {
		parts = append(parts, "what is posted to "+eventsPath(t.Namespace))
	}
	if c := t.Cron; c != nil {
		parts = append(parts, strings.TrimSpace(c.Schedule+" "+c.Zone))
	}
	if w := t.Webhook; w != nil {
		parts = append(parts, "what is posted to /hooks/"+t.ID().String()+", signed as by "+w.Style)
	}
	if k := t.Kafka; k != nil {
		parts = append(parts, "the topic "+k.Topic+" of "+strings.Join(k.Brokers, ", "))
		if k.Unordered {
			parts = append(parts, "unordered")
		}
	}
	if n := t.NATS; n != nil {
		what := "the subject " + n.Subject
		if n.Stream != "" {
			what = strings.TrimSpace("the stream " + n.Stream + " " + n.Subject)
		}
		parts = append(parts, what+" of "+strings.Join(n.Servers, ", "))
	}
	if n := len(t.Filters); n > 0 {
		parts = append(parts, many(n, "filter"))
	}
	return strings.Join(parts, ", ")
}

func eventsPath(namespace string) string {
	if namespace == functions.DefaultNamespace {
		return "/events"
	}
	return "/events/" + namespace
}

func newTriggerShowCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show TRIGGER", Short: "Show a trigger and how it does", Args: argCount(1, 1, "TRIGGER"), ValidArgsFunction: a.completeTriggers,
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := parseTriggerName(args[0])
			if err != nil {
				return err
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			t, err := c.Trigger(cmd.Context(), id)
			if err != nil {
				return err
			}
			return show(a, t, triggerName(*t), triggerFields(t))
		},
	}
}

func triggerFields(t *v1.TriggerView) []field {
	var filters []string
	for i := range t.Filters {
		filters = append(filters, filterText(&t.Filters[i]))
	}
	var firings []string
	for _, f := range t.Firings {
		firings = append(firings, strings.TrimSpace(fmt.Sprintf("%s %s %s %s", stamp(f.Scheduled), f.Outcome, f.Invocation, f.Reason)))
	}
	lag := ""
	if t.Status.Lag != nil {
		lag = count(*t.Status.Lag)
	}
	from := ""
	if t.Declared {
		from = "the tatami.yaml of " + t.Ref().String()
	}
	return []field{
		{"trigger", triggerName(*t)},
		{"function", t.Ref().String() + strings.TrimSuffix(t.Path, "/")},
		{"state", t.Status.State},
		{"reason", t.Status.Reason},
		{"source", sourceText(&t.Trigger)},
		{"filters", strings.Join(filters, "\n")},
		{"declared", from},
		{"accepted", count(t.Status.Accepted)},
		{"filtered", count(t.Status.Filtered)},
		{"refused", count(t.Status.Refused)},
		{"lag", lag},
		{"last", stamp(t.Status.Last)},
		{"next", stamp(t.Status.Next)},
		{"firings", strings.Join(firings, "\n")},
		{"created", stamp(t.Created)},
	}
}

func newTriggerRmCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "rm TRIGGER...", Short: "Remove triggers", Args: argCount(1, -1, "TRIGGER..."), ValidArgsFunction: a.completeTriggers,
		Long: "Removes triggers. Invocations that they caused go on.",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			return eachTrigger(a, args, func(id functions.Ref) error {
				if err := c.DeleteTrigger(cmd.Context(), id); err != nil {
					return err
				}
				a.talk("%s is removed\n", id)
				return nil
			})
		},
	}
}

func newTriggerPauseCmd(a *app, verb, short string, paused bool) *cobra.Command {
	return &cobra.Command{
		Use: verb + " TRIGGER...", Short: short, Args: argCount(1, -1, "TRIGGER..."), ValidArgsFunction: a.completeTriggers,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			return eachTrigger(a, args, func(id functions.Ref) error {
				t, err := c.PauseTrigger(cmd.Context(), id, paused)
				if err != nil {
					return err
				}
				a.talk("%s is %s\n", id, t.Status.State)
				return nil
			})
		},
	}
}

// eachTrigger does something with each trigger that is named.
func eachTrigger(a *app, args []string, do func(functions.Ref) error) error {
	ids := make([]functions.Ref, len(args))
	for i, s := range args {
		var err error
		if ids[i], err = parseTriggerName(s); err != nil {
			return err
		}
	}
	return eachOf(a, ids, do)
}

func newTriggerTestCmd(a *app) *cobra.Command {
	var req v1.EmitRequest
	var data string
	cmd := &cobra.Command{
		Use: "test TRIGGER", Short: "Hand an event over to a trigger", Args: argCount(1, 1, "TRIGGER"), ValidArgsFunction: a.completeTriggers,
		Long: "Hands an event over to a trigger, whatever its filters say, also where it is paused, and prints the id of the invocation. A cron trigger fires.",
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := parseTriggerName(args[0])
			if err != nil {
				return err
			}
			if req.Data, err = a.payload(data); err != nil {
				return err
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			e, err := c.TryTrigger(cmd.Context(), id, req)
			if err != nil {
				return err
			}
			return show(a, e, string(e.ID), []field{{"invocation", string(e.ID)}, {"event", e.Event}, {"next", fmt.Sprintf("tatami queue show %s", e.ID)}})
		},
	}
	f := cmd.Flags()
	f.StringVarP(&data, "data", "d", "", "the event's data: text, @FILE, or - for standard input")
	f.StringVar(&req.ContentType, "content-type", "", "media type of the data")
	f.StringVar(&req.Type, "type", "", "the event's type (default tatami.test)")
	f.StringVar(&req.Source, "source", "", "the event's source (default the trigger)")
	f.StringVar(&req.Subject, "subject", "", "the event's subject")
	f.StringVar(&req.ID, "id", "", "the event's id (default one of its own)")
	return cmd
}
