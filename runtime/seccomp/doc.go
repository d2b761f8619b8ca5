// Package seccomp turns an OCI seccomp profile into the filter that the kernel runs, for processes that no OCI runtime starts.
package seccomp
