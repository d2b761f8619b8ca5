// Package gateway is the HTTP front: its listeners, the public routes, and the end of both when the process stops.
//
// The public listener serves functions and what belongs to invocations; the control listener, a TCP address and a unix socket, serves
// operators. Opening the first to the world exposes functions and nothing else.
package gateway
