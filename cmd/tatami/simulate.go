package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/scheduler/sim"
)

// The bounds of what is generated, so that a slip of the finger does not fill the memory.
const (
	mostSimulatedApps = 20_000
	mostSimulatedDays = 30
)

// simulation is what the flags of simulate say.
type simulation struct {
	traces     []string
	seed       uint64
	apps, days int
	policies   []string
	memory     string
	svg        string
	whole      bool
}

// simulated is a policy's line of the output.
type simulated struct {
	Policy string `json:"policy"`
	// Budget is the idle memory allowed, in bytes; the scheduler's policy alone has one.
	Budget int64 `json:"memory_budget_bytes,omitempty"`
	*sim.Result
}

func newSimulateCmd(a *app) *cobra.Command {
	var s simulation
	cmd := &cobra.Command{
		Use: "simulate", Short: "Play a trace against keep-alive policies, without a server", Args: argCount(0, 0, ""),
		Long: "Plays a trace of invocations under a virtual clock and prints for each policy the cold starts, the memory wasted and the nodes used.\n" +
			"A trace is generated from the published shapes of a large provider, or read from CSV files that continue each other: lines of\n" +
			"app,at_ms,run_ms,memory_mib, or the invocations per minute of the Azure Functions trace of 2019.\n\n" +
			"auto is the scheduler's own policy. Without --memory it gets the idle memory that a fixed window of ten minutes takes of the same trace.",
		Example: "  tatami simulate --generate 1 --apps 500 --days 7\n" +
			"  tatami simulate --trace day1.csv,day2.csv --policy auto,fixed-5m,hybrid-4h --svg curves.svg -o json",
		RunE: func(cmd *cobra.Command, _ []string) error { return s.run(a, cmd) },
	}
	f := cmd.Flags()
	f.StringSliceVar(&s.traces, "trace", nil, "CSV files of a trace, in order")
	f.Uint64Var(&s.seed, "generate", 1, "generate a trace from this seed")
	f.IntVar(&s.apps, "apps", 200, "applications of a generated trace")
	f.IntVar(&s.days, "days", 7, "days of a generated trace")
	f.StringSliceVar(&s.policies, "policy", []string{"auto", "fixed-10m"}, "policies: auto, clairvoyant, fixed-DURATION, hybrid-DURATION")
	f.StringVar(&s.memory, "memory", "", "memory that auto may keep idle, such as 64Gi")
	f.BoolVar(&s.whole, "whole", false, "drive the whole scheduler, messages included: for auto and fixed windows; many times slower")
	f.StringVar(&s.svg, "svg", "", "file to draw the curves to")
	_ = cmd.RegisterFlagCompletionFunc("policy", cobra.FixedCompletions([]string{"auto", "clairvoyant", "fixed-10m", "hybrid-4h"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (s *simulation) run(a *app, cmd *cobra.Command) error {
	if len(s.traces) > 0 && cmd.Flags().Changed("generate") {
		return fault.New(fault.CodeInvalidRequest, "trace: a trace is either read or generated").WithField("trace").WithHint("tatami simulate --help")
	}
	if err := s.check(); err != nil {
		return err
	}
	trace, err := s.load()
	if err != nil {
		return err
	}
	site := sim.NewSite(trace)
	a.talk("%d applications, %d invocations in %s\n", len(trace.Apps), trace.Invocations(), functions.Duration(trace.Length))
	base := sim.Play(site, sim.Fixed(10*time.Minute), nil)
	var out []simulated
	var curves []sim.Curve
	for _, name := range s.policies {
		if err := cmd.Context().Err(); err != nil {
			return err
		}
		one := simulated{Policy: name}
		p, err := s.policy(name, site, base, &one.Budget)
		if err != nil {
			return err
		}
		if s.whole {
			one.Result, err = s.drive(name, one.Budget, trace)
		} else {
			one.Result = sim.Play(site, p, sim.NewFleet())
		}
		if err != nil {
			return err
		}
		out = append(out, one)
		curves = append(curves, sim.Curve{Name: name, Result: one.Result})
	}
	if err := s.draw(curves); err != nil {
		return err
	}
	return list(a, out, func(o simulated) string { return o.Policy }, simulatedColumns(base), "")
}

// check looks at the flags before anything long begins.
func (s *simulation) check() error {
	if len(s.traces) == 0 && (s.apps < 1 || s.apps > mostSimulatedApps) {
		return fault.New(fault.CodeInvalidRequest, "apps: %d is not between 1 and %d", s.apps, mostSimulatedApps).WithField("apps")
	}
	if len(s.traces) == 0 && (s.days < 1 || s.days > mostSimulatedDays) {
		return fault.New(fault.CodeInvalidRequest, "days: %d is not between 1 and %d", s.days, mostSimulatedDays).WithField("days")
	}
	if len(s.policies) == 0 {
		return fault.New(fault.CodeInvalidRequest, "policy: none is named").WithField("policy").WithHint("tatami simulate --policy auto")
	}
	for _, name := range s.policies {
		if name == "auto" || name == "clairvoyant" {
			continue
		}
		if _, _, err := window(name); err != nil {
			return err
		}
	}
	return nil
}

// window reads a policy's name with a duration.
func window(name string) (kind string, d time.Duration, err error) {
	kind, text, _ := strings.Cut(name, "-")
	d, bad := time.ParseDuration(text)
	if kind != "fixed" && kind != "hybrid" || bad != nil || d < time.Minute || d > 7*24*time.Hour {
		return "", 0, fault.New(fault.CodeInvalidRequest, "policy: %.40q is none of auto, clairvoyant, fixed-DURATION and hybrid-DURATION, of a minute to a week", name).
			WithField("policy").WithHint("tatami simulate --policy auto,fixed-10m,hybrid-4h")
	}
	return kind, d, nil
}

func (s *simulation) policy(name string, site *sim.Site, base *sim.Result, budget *int64) (sim.Policy, error) {
	switch name {
	case "clairvoyant":
		return sim.Clairvoyant(site, base.Waste), nil
	case "auto":
		if s.memory == "" {
			_, *budget = sim.AtWaste(site, base.Waste, 0.01)
			return sim.Auto(site, *budget), nil
		}
		bytes, err := readSize(s.memory)
		if err != nil {
			return nil, fault.New(fault.CodeInvalidRequest, "memory: %s", err).WithField("memory")
		}
		*budget = bytes
		return sim.Auto(site, bytes), nil
	}
	kind, d, err := window(name)
	if kind == "hybrid" {
		return sim.Hybrid(site, d), err
	}
	return sim.Fixed(d), err
}

// load reads or generates the trace.
func (s *simulation) load() (*sim.Trace, error) {
	if len(s.traces) == 0 {
		return sim.Generate(s.seed, s.apps, time.Duration(s.days)*24*time.Hour), nil
	}
	var files []io.Reader
	for _, name := range s.traces {
		f, err := os.Open(name)
		if err != nil {
			return nil, fault.New(fault.CodeInvalidRequest, "trace: %s", err).WithField("trace")
		}
		defer f.Close()
		files = append(files, f)
	}
	t, err := sim.Read(files, s.traces)
	if err != nil {
		return nil, fault.New(fault.CodeInvalidRequest, "trace: %s", err).WithField("trace").WithHint("tatami simulate --help")
	}
	return t, nil
}

func (s *simulation) draw(curves []sim.Curve) error {
	if s.svg == "" {
		return nil
	}
	f, err := os.Create(s.svg)
	if err != nil {
		return fault.New(fault.CodeInvalidRequest, "svg: %s", err).WithField("svg")
	}
	if err := sim.Draw(f, curves); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

func simulatedColumns(base *sim.Result) []column[simulated] {
	percent := func(v float64) string { return fmt.Sprintf("%.2f%%", 100*v) }
	return []column[simulated]{
		{head: "POLICY", cell: func(o simulated) string { return o.Policy }},
		{head: "COLD", num: true, cell: func(o simulated) string { return fmt.Sprintf("%.4f%%", 100*o.Rate) }},
		{head: "APP Q50", num: true, cell: func(o simulated) string { return percent(o.AppQ50) }},
		{head: "APP Q75", num: true, cell: func(o simulated) string { return percent(o.AppQ75) }},
		{head: "WASTE", num: true, cell: func(o simulated) string { return fmt.Sprintf("%.0f GiB h", o.Waste) }},
		{head: "OF FIXED-10M", num: true, cell: func(o simulated) string { return fmt.Sprintf("%.2fx", o.Waste/max(base.Waste, 1e-9)) }},
		{head: "AHEAD", num: true, cell: func(o simulated) string { return fmt.Sprint(o.Ahead) }},
		{head: "P99 SLOWDOWN", num: true, cell: func(o simulated) string { return fmt.Sprintf("%.2fx", o.Slowdown) }},
		{head: "NODES", num: true, cell: func(o simulated) string { return fmt.Sprint(o.MostNodes) }},
	}
}
