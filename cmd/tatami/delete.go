package main

import (
	"bufio"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

func newDeleteCmd(a *app) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "delete FUNCTION...", Short: "Delete functions", Args: argCount(1, -1, "FUNCTION..."), ValidArgsFunction: a.completeFunctions,
		Long: "Deletes functions with their revisions. Running invocations end first, queued ones die with the reason. On a terminal it asks, unless --yes is given.",
		RunE: func(cmd *cobra.Command, args []string) error {
			refs := make([]functions.Ref, len(args))
			for n, s := range args {
				ref, err := functions.ParseRef(s)
				if err != nil {
					return err
				}
				refs[n] = ref
			}
			if !yes {
				if err := a.confirm(cmd.Context(), fmt.Sprintf("delete %s?", strings.Join(args, ", "))); err != nil {
					return err
				}
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			return eachOf(a, refs, func(ref functions.Ref) error {
				if err := c.Delete(cmd.Context(), ref); err != nil {
					return err
				}
				a.print("%s\n", ref)
				return nil
			})
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

// eachOf does something to each of several. Where some of them fail it tells why and ends with the exit code for "partly"; where all do,
// the last error is the command's.
func eachOf[T any](a *app, all []T, do func(T) error) error {
	var failed []error
	for _, one := range all {
		if err := do(one); err != nil {
			failed = append(failed, err)
		}
	}
	if len(failed) == 0 {
		return nil
	}
	last := len(failed) - 1
	if len(failed) < len(all) {
		last++
	}
	for _, err := range failed[:last] {
		a.printError(err)
	}
	if last < len(failed) {
		return failed[last]
	}
	return exitError(exitPartial)
}

// confirm asks the person at the terminal; without one the command line says it all.
func (a *app) confirm(ctx context.Context, question string) error {
	if !a.errTTY || !isTerminal(a.stdin) {
		return nil
	}
	a.say("%s [y/N] ", question)
	line, err := await(ctx, func() (string, error) { return bufio.NewReader(a.stdin).ReadString('\n') })
	if ctx.Err() != nil {
		a.say("\n")
		return ctx.Err()
	}
	if line = strings.ToLower(strings.TrimSpace(line)); err == nil && (line == "y" || line == "yes") {
		return nil
	}
	return fault.New(fault.CodeInvalidRequest, "nothing was deleted").WithHint("confirm, or give --yes")
}

// await returns what read does, unless ctx ends first. Nothing can end a read of standard input: it is left behind for the program's end.
func await[T any](ctx context.Context, read func() (T, error)) (T, error) {
	type outcome struct {
		value T
		err   error
	}
	done := make(chan outcome, 1)
	go func() {
		v, err := read()
		done <- outcome{v, err}
	}()
	select {
	case o := <-done:
		return o.value, o.err
	case <-ctx.Done():
		var zero T
		return zero, ctx.Err()
	}
}
