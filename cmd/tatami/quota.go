package main

import (
	"github.com/spf13/cobra"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/internal/fault"
)

func newQuotaCmd(a *app) *cobra.Command {
	ls := &cobra.Command{
		Use: "ls", Short: "List namespaces with their quotas and what they use", Args: argCount(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			quotas, err := c.Quotas(cmd.Context())
			if err != nil {
				return err
			}
			return list(a, quotas, func(q v1.NamespaceQuota) string { return q.Namespace }, quotaColumns(), "no namespace has a quota or uses anything")
		},
	}
	sh := &cobra.Command{
		Use: "show [NAMESPACE]", Short: "Show the quota of a namespace", Args: argCount(0, 1, "[NAMESPACE]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			q, err := c.Quota(cmd.Context(), namespaceArg(args))
			if err != nil {
				return err
			}
			return show(a, q, q.Namespace, quotaFields(q))
		},
	}
	cmd := group("quota", "Quotas of namespaces: ls, show, set", ls, sh, newQuotaSetCmd(a))
	cmd.Aliases = []string{"quotas"}
	return cmd
}

func namespaceArg(args []string) string {
	if len(args) == 1 {
		return args[0]
	}
	return functions.DefaultNamespace
}

func newQuotaSetCmd(a *app) *cobra.Command {
	var cpu cpuFlag
	var memory sizeFlag
	var instances, fns, concurrent, perSecond int64
	cmd := &cobra.Command{
		Use: "set [NAMESPACE]", Short: "Set bounds of a namespace", Args: argCount(0, 1, "[NAMESPACE]"),
		Long:    "Sets the bounds that are given and leaves the others as they are. 0 takes a bound away. What runs already is not stopped.",
		Example: "  tatami quota set team-a --cpu 4 --memory 8Gi --functions 20",
		RunE: func(cmd *cobra.Command, args []string) error {
			f := cmd.Flags()
			if f.NFlag() == 0 {
				return fault.New(fault.CodeInvalidRequest, "no bound is given").WithHint("tatami quota set --help")
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			old, err := c.Quota(cmd.Context(), namespaceArg(args))
			if err != nil {
				return err
			}
			q := old.Quota
			for name, set := range map[string]func(){
				"cpu": func() { q.CPU = int64(cpu) }, "memory": func() { q.Memory = int64(memory) }, "instances": func() { q.Instances = instances },
				"functions": func() { q.Functions = fns }, "concurrent": func() { q.Concurrent = concurrent }, "rate": func() { q.Rate = perSecond },
			} {
				if f.Changed(name) {
					set()
				}
			}
			now, err := c.SetQuota(cmd.Context(), q)
			if err != nil {
				return err
			}
			return show(a, now, now.Namespace, quotaFields(now))
		},
	}
	f := cmd.Flags()
	f.Var(&cpu, "cpu", "processor time over all instances, such as 4 or 500m")
	f.Var(&memory, "memory", "memory over all instances, ephemeral storage included, such as 8Gi")
	f.Int64Var(&instances, "instances", 0, "instances")
	f.Int64Var(&fns, "functions", 0, "functions")
	f.Int64Var(&concurrent, "concurrent", 0, "invocations at the same time")
	f.Int64Var(&perSecond, "rate", 0, "invocations per second")
	return cmd
}

func quotaColumns() []column[v1.NamespaceQuota] {
	of := func(used, most int64, format func(int64) string) string {
		return format(used) + "/" + bound(most, format)
	}
	return []column[v1.NamespaceQuota]{
		{head: "namespace", cell: func(q v1.NamespaceQuota) string { return q.Namespace }},
		{head: "cpu", num: true, cell: func(q v1.NamespaceQuota) string { return of(q.Used.CPU, q.CPU, cores) }},
		{head: "memory", num: true, cell: func(q v1.NamespaceQuota) string { return of(q.Used.Memory, q.Memory, size) }},
		{head: "instances", num: true, cell: func(q v1.NamespaceQuota) string { return of(q.Used.Instances, q.Instances, count) }},
		{head: "functions", num: true, cell: func(q v1.NamespaceQuota) string { return of(q.UsedFunctions, q.Functions, count) }},
		{head: "concurrent", num: true, cell: func(q v1.NamespaceQuota) string { return bound(q.Concurrent, count) }},
		{head: "rate", num: true, cell: func(q v1.NamespaceQuota) string { return bound(q.Rate, count) }},
	}
}

func quotaFields(q *v1.NamespaceQuota) []field {
	of := func(used, most int64, format func(int64) string) string {
		if most == 0 {
			return format(used) + " used, no bound"
		}
		return format(used) + " used of " + format(most)
	}
	return []field{
		{"namespace", q.Namespace},
		{"cpu", of(q.Used.CPU, q.CPU, cores)},
		{"memory", of(q.Used.Memory, q.Memory, size)},
		{"instances", of(q.Used.Instances, q.Instances, count)},
		{"functions", of(q.UsedFunctions, q.Functions, count)},
		{"concurrent", bound(q.Concurrent, count)},
		{"rate", bound(q.Rate, count)},
	}
}
