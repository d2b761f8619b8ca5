// Package sim plays a trace of invocations under a virtual clock and tells what keep-alive makes of it: cold starts, wasted memory, nodes used.
//
// Its unit is the application, whose functions share their instances, as where the published traces were taken: one instance runs
// everything of an application that overlaps. Keep-alive and placement are the scheduler's own packages, without the messages around them.
//
// Traces are read from files or generated. The generator knows nothing of any policy: each number in shapes.go is a published one, with its
// source. The policy's constants were chosen on the trace of seed 1.
package sim
