package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
)

func newFnCmd(a *app) *cobra.Command {
	var namespace string
	ls := &cobra.Command{
		Use: "ls", Short: "List functions", Args: argCount(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			fns, err := c.Functions(cmd.Context(), namespace)
			if err != nil {
				return err
			}
			if len(fns) > 0 {
				a.tellWithout(fns[0].Traffic)
			}
			return list(a, fns, functionName, functionColumns(time.Now()),
				"no functions yet; `tatami init` makes one, `tatami deploy` ships it")
		},
	}
	ls.Flags().StringVarP(&namespace, "namespace", "n", "", "functions of this namespace only")
	sh := &cobra.Command{
		Use: "show FUNCTION", Short: "Show a function", Args: argCount(1, 1, "FUNCTION"), ValidArgsFunction: a.completeFunctions,
		RunE: func(cmd *cobra.Command, args []string) error {
			ref, err := functions.ParseRef(args[0])
			if err != nil {
				return err
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			f, err := c.Function(cmd.Context(), ref)
			if err != nil {
				return err
			}
			a.tellWithout(f.Traffic)
			return show(a, f, ref.String(), functionFields(f, time.Now()))
		},
	}
	cmd := group("fn", "Functions: ls, show", ls, sh)
	cmd.Aliases = []string{"function", "functions"}
	return cmd
}

// tellWithout names the servers whose traffic is missing from what is shown.
func (a *app) tellWithout(t v1.Traffic) {
	if len(t.Without) > 0 && !a.machine() {
		a.say("%s traffic is without that of %s: see tatami cluster ls\n", a.paint(a.errTTY, amber, "warning:"), clean(strings.Join(t.Without, ", ")))
	}
}

func functionName(f v1.Function) string { return f.Ref().String() }

func functionColumns(now time.Time) []column[v1.Function] {
	return []column[v1.Function]{
		{head: "function", cell: functionName},
		{head: "revision", cell: func(f v1.Function) string {
			switch {
			case f.Candidate != "":
				return orText(string(f.Live), "none") + " → " + string(f.Candidate)
			case f.Live == "":
				return "none ready"
			}
			return string(f.Live)
		}},
		{head: "instances", num: true, cell: func(f v1.Function) string { return instanceCounts(f.Instances) }},
		{head: "rps", num: true, cell: func(f v1.Function) string { return rate(f.Traffic.RPS) }},
		{head: "p50", num: true, cell: func(f v1.Function) string { return brief(f.Traffic.P50.Std()) }},
		{head: "p99", num: true, cell: func(f v1.Function) string { return brief(f.Traffic.P99.Std()) }},
		{head: "cold", num: true, cell: func(f v1.Function) string { return fmt.Sprint(f.Traffic.ColdStarts) }},
		{head: "errors", num: true, cell: func(f v1.Function) string { return percent(f.Traffic.Errors, f.Traffic.Requests) }},
		{head: "queue", num: true, cell: func(f v1.Function) string { return fmt.Sprint(f.Queue.Pending + f.Queue.Scheduled) }},
		{head: "dead", num: true, wide: true, cell: func(f v1.Function) string { return fmt.Sprint(f.Queue.Dead) }},
		{head: "updated", wide: true, cell: func(f v1.Function) string { return age(now, f.Updated) }},
		{head: "url", wide: true, cell: func(f v1.Function) string { return f.URL }},
		{head: "pending", wide: true, cell: func(f v1.Function) string { return f.Pending }},
	}
}

// instanceCounts writes ready/desired, with z where the function is scaled to zero.
func instanceCounts(c v1.InstanceCounts) string {
	s := fmt.Sprintf("%d/%d", c.Ready, c.Desired)
	if c.Ready+c.Starting+c.Draining+c.Desired == 0 {
		s += " z"
	}
	return s
}

// readyCount writes how many take requests, and how many of them are frozen.
func readyCount(c v1.InstanceCounts) string {
	if c.Frozen == 0 {
		return fmt.Sprintf("%d ready", c.Ready)
	}
	return fmt.Sprintf("%d ready (%d of them frozen)", c.Ready, c.Frozen)
}

func functionFields(f *v1.Function, now time.Time) []field {
	out := []field{
		{"function", f.Ref().String()},
		{"url", f.URL},
		{"live", orText(string(f.Live), "none: no revision was ready yet")},
		{"candidate", string(f.Candidate)},
		{"previous", string(f.Previous)},
		{"instances", fmt.Sprintf("%s, %d starting, %d draining; %d wanted", readyCount(f.Instances), f.Instances.Starting, f.Instances.Draining, f.Instances.Desired)},
		{"reason", f.Reason},
		{"pending", f.Pending},
		{"traffic", fmt.Sprintf("%s rps, p50 %s, p99 %s, %d cold starts, %s errors", rate(f.Traffic.RPS), brief(f.Traffic.P50.Std()),
			brief(f.Traffic.P99.Std()), f.Traffic.ColdStarts, percent(f.Traffic.Errors, f.Traffic.Requests))},
		{"queue", queueText(f.Queue, now)},
		{"updated", stamp(f.Updated)},
	}
	if f.Current != nil {
		out = append(out, configFields(f.Current.Artifact, f.Current.Config)...)
		if f.Live == "" {
			out = append(out, field{"failed", f.Current.Reason}, field{"last lines", strings.Join(f.Current.Logs, "\n")})
		}
	}
	return out
}

func queueText(q v1.QueueDepth, now time.Time) string {
	s := fmt.Sprintf("%d pending, %d scheduled, %d running, %d dead", q.Pending, q.Scheduled, q.Running, q.Dead)
	if !q.Oldest.IsZero() {
		s += ", oldest " + age(now, q.Oldest)
	}
	return s
}

// configFields describe what is run, and how.
func configFields(art functions.Artifact, c functions.Config) []field {
	digest := strings.TrimPrefix(art.Digest, "sha256:")
	out := []field{
		{"artifact", fmt.Sprintf("%s (sha256:%.12s, linux/%s)", art.Name, digest, art.Architecture)},
		{"limits", fmt.Sprintf("cpu %s, memory %s, ephemeral %s, pids %d", cores(c.Limits.CPU), size(c.Limits.Memory), size(c.Limits.Ephemeral), c.Limits.PIDs)},
		{"scale", fmt.Sprintf("%d to %d instances, %d at once each, idle for %s", c.Scale.Min, c.Scale.Max, c.Concurrency, keptIdle(c.Scale))},
		{"timeout", fmt.Sprintf("%s, idle %s, ready within %s", c.Timeout, c.IdleTimeout, c.Readiness.Timeout)},
		{"port", fmt.Sprint(c.Port)},
		{"egress", orText(c.Egress, functions.EgressNone)},
	}
	if c.GVisor() {
		out = append(out, field{"sandbox", c.Sandbox})
	}
	if len(c.Command) > 0 {
		out = append(out, field{"command", strings.Join(c.Command, " ")})
	}
	for n, k := range slices.Sorted(maps.Keys(c.Env)) {
		name := "env"
		if n > 0 {
			name = "   "
		}
		out = append(out, field{name, k + "=" + c.Env[k]})
	}
	return out
}

func orText(s, or string) string {
	if s == "" {
		return or
	}
	return s
}

// keptIdle writes for how long instances are kept.
func keptIdle(s functions.Scale) string {
	if s.KeepAliveMax == 0 {
		return s.KeepAlive.String()
	}
	return fmt.Sprintf("%s to %s", s.KeepAlive, s.KeepAliveMax)
}
