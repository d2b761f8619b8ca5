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
			var failed []error
			for _, ref := range refs {
				if err := c.Delete(cmd.Context(), ref); err != nil {
					failed = append(failed, err)
					continue
				}
				a.print("%s\n", ref)
			}
			switch {
			case len(failed) == 0:
				return nil
			case len(failed) == len(refs):
				last := len(failed) - 1
				for _, err := range failed[:last] {
					a.printError(err)
				}
				return failed[last]
			}
			for _, err := range failed {
				a.printError(err)
			}
			return exitError(exitPartial)
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
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
