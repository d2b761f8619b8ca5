// Package relay has one server of a cluster do what only the one that leads can: what is queued, and the control API. The other servers hand
// such requests on to it, over TLS on which both show that they are servers, and wait for a while when nobody leads. Everything else, above
// all calls of functions, each server does itself.
package relay
