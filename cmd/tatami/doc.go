// Command tatami is the whole of Tatami in one binary: the runtime (`tatami up`) and the client verbs.
//
// Each verb has a file: it reads flags, calls gateway/client and prints. Results go to stdout, everything else to stderr; the exit code
// follows from the kind of the error (see internal/fault).
package main
