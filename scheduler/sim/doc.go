// Package sim plays a trace of invocations under a virtual clock and tells what keep-alive makes of it: cold starts, wasted memory, nodes used.
//
// Its unit is the application, whose functions share their instances, as where the published traces were taken: one instance runs
// everything of an application that overlaps. There are two players. Play is fast: keep-alive and placement are the scheduler's own packages, without
// the messages around them. Drive, on Linux, runs the scheduler's whole Reconciler between a simulated gateway and simulated workers. On what both model they agree:
// with a fixed window and starts that take no time in every cold start and in the waste; with the scheduler's own policy, which learns from messages
// there, to a tenth.
//
// Traces are read from files or generated. The generator knows nothing of any policy: each number in shapes.go is a published one, with its
// source. The policy's constants were chosen on the trace of seed 1.
package sim
