package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/tatami-faas/tatami/runtime/containerd"
)

// serverCmds are the verbs that run parts of the system on this machine.
func serverCmds(a *app) []*cobra.Command {
	return []*cobra.Command{newUpCmd(a), newServerCmd(a), newWorkerCmd(a), newNomadCmd(a)}
}

// runShimIfAsked is the shim's main function, if the embedded containerd started this program as one.
func runShimIfAsked() {
	if containerd.IsShim(os.Args) {
		containerd.RunShim()
		os.Exit(0)
	}
}
