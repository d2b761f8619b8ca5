// Package nats takes messages of an external NATS server in.
//
// Those of a stream come through a durable consumer and are acknowledged when their invocations are durable: what comes again is the same event,
// for its stream and sequence name it. Those of a subject come once, to one member of a queue group, and nobody keeps them meanwhile: where they come
// faster than they are taken, for longer than the buffer holds, they are lost, and that is logged.
package nats
