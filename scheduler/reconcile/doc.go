// Package reconcile is the scheduler's judgement: an input changes the state, and out come the effects that bring the world nearer to what the
// records and the load ask for.
//
// It is pure like the policies that it puts together (placement, autoscale, keepalive over state): the time comes with each input, ids come
// from a function handed in, and effects are values. The scheduler runs it against the bus, a script or a simulation against a virtual clock.
//
// What it does for a function, in this order: bring the candidate to readiness, enough of it to carry the load, and then ask for the
// traffic to move; start what the live revision lacks; drain what is neither, and what is on a node that its operator
// wants empty, once others are ready elsewhere; stop what nobody needs any more. An instance is reserved in the
// state before its start is commanded.
package reconcile
