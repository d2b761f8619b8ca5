// Package worker is the node's agent: it starts, ends and adopts instances as the scheduler commands, says which of them take requests,
// owns their slots, and reports.
//
// An instance lives in one goroutine: starting -> ready -> draining -> stopped, or failed; an idle one is
// frozen, and ready again with the next slot that is taken. Commands only set what it shall do next, so
// that repeating one changes nothing. Its slots are one atomic word, in which the right to stop and the slots held exclude each other:
// nothing on the way of a request takes a lock.
//
// Nothing about instances is persisted here: each sandbox carries a record from which the next run of the worker adopts it.
package worker
