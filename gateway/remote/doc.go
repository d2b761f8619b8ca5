// Package remote reaches the instances on the nodes of joined workers, and those of this process's own worker by the same calls.
//
// Both sides show certificates. For each joined worker it keeps one session, over which slots are taken and given back, and makes a tunnel for each connection to an
// instance: bytes pass as if the instance were here. A session that breaks takes its slots and tunnels with it, on both sides, and is made
// anew; a worker that cannot be reached for a while is reported as lost. A slot that a call gives back is kept for the next one for a moment, where the worker
// allows that: to ask for one takes as long as the call.
package remote
