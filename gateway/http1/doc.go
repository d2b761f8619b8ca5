// Package http1 serves ordinary HTTP/1.1 requests with little work, and hands every connection that asks for anything else over to net/http.
//
// What is ordinary is decided by the head of a request, and strictly: one line that ends in HTTP/1.1, a target that begins with a slash, one
// Host, names and values without anything odd in them, no body or one of a given length. Whatever is not, from HTTP/2 and upgrades to a line
// that ends without a carriage return, net/http reads from its first byte, and keeps the connection. So there is one judge of what is valid,
// and the parser here only has to agree with it on the requests that it takes.
//
// The same holds for what functions answer: an ordinary answer is read into a list of fields, which can be passed on without a header between.
//
// A connection has one goroutine and, while nothing comes, no buffer. Time limits, and clients that leave in the middle of a request, are looked
// for by one goroutine for all connections; nothing is armed for a single request.
package http1
