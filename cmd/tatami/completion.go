package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/gateway/client"
)

// completionTimeout bounds what a shell waits for.
const completionTimeout = time.Second

// complete asks the server for what an argument may be. Where it does not answer, there is nothing to choose from.
func (a *app) complete(cmd *cobra.Command, ask func(context.Context, *client.Client) ([]string, error)) ([]string, cobra.ShellCompDirective) {
	if a.prepare(cmd) != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	c, err := a.connect()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
	defer cancel()
	out, err := ask(ctx, c)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// names is what completions make of a list.
func names[T any](items []T, err error, name func(T) string) ([]string, error) {
	out := make([]string, 0, len(items))
	for _, i := range items {
		out = append(out, name(i))
	}
	return out, err
}

func (a *app) completeFunctions(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.complete(cmd, func(ctx context.Context, c *client.Client) ([]string, error) {
		all, err := c.Functions(ctx, "")
		return names(all, err, functionName)
	})
}

// completeRevisions completes a function, then one of its revisions.
func (a *app) completeRevisions(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) != 1 {
		return a.completeFunctions(cmd, args, typed)
	}
	return a.complete(cmd, func(ctx context.Context, c *client.Client) ([]string, error) {
		ref, err := functions.ParseRef(args[0])
		if err != nil {
			return nil, err
		}
		all, err := c.Revisions(ctx, ref)
		return names(all, err, revisionName)
	})
}

func (a *app) completeInstances(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return a.complete(cmd, func(ctx context.Context, c *client.Client) ([]string, error) {
		all, err := c.Instances(ctx, client.InstanceFilter{})
		return names(all, err, instanceName)
	})
}

func (a *app) completeNodes(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.complete(cmd, func(ctx context.Context, c *client.Client) ([]string, error) {
		all, err := c.Nodes(ctx)
		return names(all, err, nodeName)
	})
}

func (a *app) completeNamespaces(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.complete(cmd, func(ctx context.Context, c *client.Client) ([]string, error) {
		all, err := c.Quotas(ctx)
		all = slices.DeleteFunc(all, func(q v1.NamespaceQuota) bool { return strings.HasPrefix(q.Namespace, "_") })
		return names(all, err, quotaName)
	})
}
