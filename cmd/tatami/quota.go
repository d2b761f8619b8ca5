package main

import (
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/internal/fault"
)

func newQuotaCmd(a *app) *cobra.Command {
	ls := &cobra.Command{
		Use: "ls", Short: "List namespaces with their quotas and what they use", Args: argCount(0, 0, ""),
		Long: "Lists namespaces with used/bound of each resource, and what is left in brackets. _defaults holds where a namespace has no bound of its own, _total is about all together.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			quotas, err := c.Quotas(cmd.Context())
			if err != nil {
				return err
			}
			return list(a, quotas, quotaName, quotaColumns(), "no namespace has a quota or uses anything")
		},
	}
	cmd := group("quota", "Quotas of namespaces: ls, show, set, unset", ls, newQuotaShowCmd(a), newQuotaSetCmd(a), newQuotaUnsetCmd(a))
	cmd.Aliases = []string{"quotas"}
	return cmd
}

func quotaName(q v1.NamespaceQuota) string { return q.Namespace }

// whose are the flags that stand in a namespace's place.
type whose struct{ defaults, total bool }

func (w *whose) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&w.defaults, "defaults", false, "what holds where a namespace has no bound of its own")
	cmd.Flags().BoolVar(&w.total, "total", false, "all namespaces together")
}

// name returns whose quota is meant.
func (w *whose) name(args []string) (string, error) {
	if w.defaults && w.total || (w.defaults || w.total) && len(args) > 0 {
		return "", fault.New(fault.CodeInvalidRequest, "name a namespace, or one of --defaults and --total")
	}
	switch {
	case w.defaults:
		return functions.QuotaDefaults, nil
	case w.total:
		return functions.QuotaTotal, nil
	case len(args) == 1:
		return args[0], nil
	}
	return functions.DefaultNamespace, nil
}

func newQuotaShowCmd(a *app) *cobra.Command {
	var w whose
	cmd := &cobra.Command{
		Use: "show [NAMESPACE]", Short: "Show the quota of a namespace", Args: argCount(0, 1, "[NAMESPACE]"), ValidArgsFunction: a.completeNamespaces,
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := w.name(args)
			if err != nil {
				return err
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			q, err := c.Quota(cmd.Context(), name)
			if err != nil {
				return err
			}
			return show(a, q, q.Namespace, quotaFields(q))
		},
	}
	w.flags(cmd)
	return cmd
}

func newQuotaUnsetCmd(a *app) *cobra.Command {
	var w whose
	cmd := &cobra.Command{
		Use: "unset [NAMESPACE]", Short: "Take a quota back: the defaults hold", Args: argCount(0, 1, "[NAMESPACE]"), ValidArgsFunction: a.completeNamespaces,
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := w.name(args)
			if err != nil {
				return err
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			if err := c.DeleteQuota(cmd.Context(), name); err != nil {
				return err
			}
			q, err := c.Quota(cmd.Context(), name)
			if err != nil {
				return err
			}
			return show(a, q, q.Namespace, quotaFields(q))
		},
	}
	w.flags(cmd)
	return cmd
}

func newQuotaSetCmd(a *app) *cobra.Command {
	var w whose
	var q functions.Quota
	var given []*boundFlag
	cmd := &cobra.Command{
		Use: "set [NAMESPACE]", Short: "Set bounds of a namespace", Args: argCount(0, 1, "[NAMESPACE]"), ValidArgsFunction: a.completeNamespaces,
		Long: "Sets the bounds that are given and leaves the others as they are. none takes a bound away, default leaves it to the defaults (--defaults). " +
			"What runs already is not stopped.",
		Example: "  tatami quota set team-a --cpu 4 --memory 8Gi --functions 20\n  tatami quota set --defaults --concurrent 100 --rate 500\n  tatami quota set --total --memory 48Gi",
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := w.name(args)
			if err != nil {
				return err
			}
			changed := false
			for _, b := range given {
				changed = changed || b.given
			}
			if !changed {
				return fault.New(fault.CodeInvalidRequest, "no bound is given").WithHint("tatami quota set --help")
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			old, err := c.Quota(cmd.Context(), name)
			if err != nil {
				return err
			}
			set, into := q, old.Own
			for i, b := range given {
				if b.given {
					*bounds(&into)[i] = *bounds(&set)[i]
				}
			}
			now, err := c.SetQuota(cmd.Context(), into)
			if err != nil {
				return err
			}
			return show(a, now, now.Namespace, quotaFields(now))
		},
	}
	w.flags(cmd)
	for i, to := range bounds(&q) {
		b := &boundFlag{to: to, resource: resources()[i]}
		given = append(given, b)
		cmd.Flags().Var(b, b.name, b.usage)
	}
	return cmd
}

// resource is what a quota bounds.
type resource struct {
	name, usage string
	read        func(string) (int64, error)
	write       func(int64) string
}

// resources are in the order of bounds.
func resources() []resource {
	return []resource{
		{"cpu", "processor time over all instances, such as 4 or 500m", readCPU, cores},
		{"memory", "memory over all instances, ephemeral storage included, such as 8Gi", readSize, size},
		{"instances", "instances", readCount, count},
		{"functions", "functions", readCount, count},
		{"concurrent", "invocations at the same time", readCount, count},
		{"rate", "invocations per second", readCount, count},
		{"weight", fmt.Sprintf("share of what is short, beside those of others that wait too: 1 to %d, else %d", functions.MaxWeight, functions.DefaultWeight), readCount, count},
	}
}

func bounds(q *functions.Quota) []*int64 {
	return []*int64{&q.CPU, &q.Memory, &q.Instances, &q.Functions, &q.Concurrent, &q.Rate, &q.Weight}
}

var errCount = errors.New("want a whole number")

func readCount(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, errCount
	}
	return n, nil
}

// boundFlag is the flag of a bound.
type boundFlag struct {
	resource
	to    *int64
	given bool
}

func (b *boundFlag) Type() string { return "bound" }

func (b *boundFlag) String() string { return "" }

var errZero = errors.New("want more than 0, none for no bound, or default for that of the defaults")

// Set reads a bound, "none" or "default".
func (b *boundFlag) Set(v string) error {
	b.given = true
	switch {
	case v == "default":
		*b.to = 0
		return nil
	case v == "none" && b.name != "weight":
		*b.to = functions.Unbounded
		return nil
	}
	n, err := b.read(v)
	if err != nil {
		return err
	}
	if n <= 0 {
		return errZero
	}
	*b.to = n
	return nil
}

// quotaLine is one resource of a quota.
type quotaLine struct {
	resource
	own, most, used int64
	left            *int64
}

// quotaLines leaves out the weight, of which nothing is used.
func quotaLines(q *v1.NamespaceQuota) []quotaLine {
	own, most, all := bounds(&q.Own), bounds(&q.Effective), resources()
	used := []int64{q.Used.CPU, q.Used.Memory, q.Used.Instances, q.Used.Functions, q.Used.Concurrent, int64(math.Ceil(q.Used.Rate))}
	h := q.Headroom
	left := []*int64{h.CPU, h.Memory, h.Instances, h.Functions, h.Concurrent, nil}
	if h.Rate != nil {
		n := int64(*h.Rate)
		left[len(left)-1] = &n
	}
	out := make([]quotaLine, 0, len(used))
	for i := range used {
		out = append(out, quotaLine{all[i], *own[i], *most[i], used[i], left[i]})
	}
	return out
}

func quotaColumns() []column[v1.NamespaceQuota] {
	out := []column[v1.NamespaceQuota]{{head: "namespace", cell: quotaName}}
	for i, r := range resources()[:len(resources())-1] {
		out = append(out, column[v1.NamespaceQuota]{head: r.name, num: true, cell: func(q v1.NamespaceQuota) string {
			l := quotaLines(&q)[i]
			if q.Namespace == functions.QuotaDefaults {
				return bound(l.most, l.write)
			}
			s := l.write(l.used) + "/" + bound(l.most, l.write)
			if l.left != nil {
				s += " (" + l.write(*l.left) + ")"
			}
			return s
		}})
	}
	return append(out, column[v1.NamespaceQuota]{head: "weight", num: true, wide: true, cell: func(q v1.NamespaceQuota) string { return bound(q.Effective.Weight, count) }})
}

func quotaFields(q *v1.NamespaceQuota) []field {
	out := []field{{"namespace", q.Namespace}}
	for _, l := range quotaLines(q) {
		s := l.write(l.used) + " used"
		if q.Namespace == functions.QuotaDefaults {
			s = bound(l.most, l.write)
		} else {
			s += l.rest()
		}
		out = append(out, field{l.name, s})
	}
	if q.Effective.Weight > 0 {
		out = append(out, field{"weight", count(q.Effective.Weight)})
	}
	return out
}

// rest says what bounds the use of a resource, and what is left.
func (l *quotaLine) rest() string {
	s := ", no bound"
	if l.most > 0 {
		s = " of " + l.write(l.most)
		if l.own == 0 {
			s += ", the defaults' bound"
		}
	}
	if l.left == nil {
		return s
	}
	s += ", " + l.write(*l.left) + " left"
	if own := max(l.most-l.used, 0); l.most == 0 || *l.left < own {
		s += " in the total"
	}
	return s
}
