//go:build !linux

package main

import "github.com/spf13/cobra"

// serverCmds is empty: functions run on Linux, the other verbs anywhere.
func serverCmds(*app) []*cobra.Command { return nil }

// clusterSetupCmds is empty: servers run on Linux.
func clusterSetupCmds(*app) []*cobra.Command { return nil }

func runShimIfAsked() {}
