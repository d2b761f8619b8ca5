// Package queue takes invocations that nobody waits for, keeps them durably, runs each until it has ended, and keeps its result.
//
// An invocation lies in the work-queue stream under a subject that follows from its id. Each function with work has a lane: one durable
// consumer, made when it is needed, and as many attempts at once as leases are granted. An attempt takes a lease first and a message then.
// What an attempt leads to is written before its message is acknowledged, with a barrier in between: the terminal record by
// compare-and-set, or the next attempt as a message with a time, which this process delivers then, or the server if it does not. A process that
// dies between any two steps leaves a message that is delivered again, and what was written tells how far it came.
//
// When an invocation has ended whose function has a destination for that, its record goes there as an invocation of its own, with an id that
// follows from the first one's, stored behind the terminal record and under the same barrier. What goes to a function is that function's; what goes to
// a URL or a subject lies in a queue beside the function's, NAME@END, whose lane leases a courier instead of an instance.
//
// A dead invocation gets its terminal record before its dead letter: the record decides which of two attempts ended it, and a dead
// letter that is missing is made when the message comes again.
package queue
