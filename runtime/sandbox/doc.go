// Package sandbox is the contract between the worker and whatever isolates a function on a node.
//
// The protocol, which runtime/sandboxtest checks on every driver:
//
//	img, err := driver.Prepare(ctx, artifact)          // once for each artifact on a node; idempotent
//	sb, err := driver.Create(ctx, spec)                // a process runs; it may not listen yet
//	conn, err := sb.Dial(ctx)                          // until it accepts: the worker's readiness check
//	...                                                // requests go through Dial
//	err = sb.Stop(ctx, grace)                          // SIGTERM, grace, SIGKILL, everything removed
//	<-sb.Done()                                        // closed once the process has ended, by itself or by Stop
//	exit := sb.Exit()                                  // how it ended
//
// A process that ends by itself closes Done; its remains stay until Stop, which then only removes them. After a restart of the worker,
// driver.List returns what is left: a sandbox whose process runs is adopted by keeping it; any other is ended with Stop. Nothing that a
// driver makes (process, mount, namespace, cgroup, file) outlives Stop.
package sandbox
