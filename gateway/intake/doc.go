// Package intake takes invocations in that NATS clients hand over: requests and bare messages on fn.{namespace}.{name}.
//
// A message is accepted as POST /async accepts a request. A request is answered when its invocation is durable, or with what is wrong; a message
// without a reply subject is accepted just the same, but nobody is told, and until it is accepted nothing is promised. The end of an invocation
// is told to its caller on result.{id}, once and to whoever listens then: GET /invocations/{id} has it for longer.
//
// Messages wait in a list that has a bound. What comes when it is full is refused at once.
package intake
