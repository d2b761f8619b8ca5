// Package autoscale decides how many instances a function should have.
//
// It follows the concurrency model of Knative's KPA. The mean of the concurrency over a stable window says what steady load needs, the
// mean over a tenth of it notices a surge: while there is one (panic) the number never falls. Besides that a level counts at once and
// without a window: what waits and runs now must find slots, so that a start from zero, or a step in load, waits for no average. The
// queue's backlog counts in that level up to what is in flight already, so that a long queue doubles what is in use with each message of
// it rather than taking all there may be at once.
//
// Everything is pure: the time is an argument and what a decision remembers is handed back to the next one.
package autoscale
