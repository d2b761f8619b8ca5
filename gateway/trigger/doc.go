// Package trigger turns events into queued invocations: it keeps the triggers that are set, runs their sources, and hands what their filters
// take over to the queue.
//
// The Hub follows the stored triggers. Events that are posted come to it through Publish; every other trigger has a source, a package below
// this one, that takes events in by itself and runs as long as the trigger is there and not paused. An event is let go by its source only
// when its invocation is durable. The same event for the same trigger is one invocation: CloudEvents' source and id name it.
package trigger
