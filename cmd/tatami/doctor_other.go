//go:build !linux

package main

import (
	"context"
	"runtime"

	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
)

// machineChecks has nothing to look at where no functions run.
func machineChecks(context.Context, machine) []v1.Check {
	return []v1.Check{okCheck("system", "%s/%s: the client verbs work here; functions run on Linux", runtime.GOOS, runtime.GOARCH)}
}
