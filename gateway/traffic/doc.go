// Package traffic tells what the gateways of a cluster do, as one. Each counts what it does itself, and tells that to whoever asks: nothing is told, and
// nobody waits for anybody, on the way of a call. A gateway that does not answer in time is named, and its figures are missing.
package traffic
