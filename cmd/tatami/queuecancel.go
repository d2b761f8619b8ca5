package main

import (
	"github.com/spf13/cobra"

	"github.com/tatami-faas/tatami/functions"
)

func newQueueCancelCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "cancel INVOCATION...", Short: "Cancel invocations that have not ended", Args: argCount(1, -1, "INVOCATION..."),
		Long: "Cancels invocations: what waits ends at once, what runs has its request closed. One that ended otherwise is an error.",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			ids := make([]functions.InvocationID, len(args))
			for n, s := range args {
				ids[n] = functions.InvocationID(s)
			}
			return eachOf(a, ids, func(id functions.InvocationID) error {
				st, err := c.Cancel(cmd.Context(), id)
				if err != nil {
					return err
				}
				if a.machine() {
					return a.encode(st)
				}
				a.print("%s\n", id)
				if !st.State.Terminal() {
					a.talk("%s is %s: its request is closed, its attempt has not ended\n", id, st.State)
				}
				return nil
			})
		},
	}
}
