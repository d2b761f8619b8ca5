// Package procs says on how many processors the Go code of this process may run at once.
//
// A server waits for the disk nearly all the time that work is handed over: for each sync one thread is in the kernel, and Go takes the processor that
// it had for busy until some tens of microseconds later, or many more where its watcher sleeps. On two processors that is a good part of a half of all.
package procs

import (
	"log/slog"
	"runtime"
)

// Choose returns on how many processors a process that syncs all the time should run, where it may use n: one more than it has. Where the user says it
// (GOMAXPROCS), that stands, and 0 is returned.
func Choose(n int, getenv func(string) string) int {
	if getenv("GOMAXPROCS") != "" {
		return 0
	}
	return n + 1
}

// Apply sets the number for this process; 0 changes nothing. From then on Go no longer follows the limits of the cgroup as they change.
func Apply(n int, log *slog.Logger) {
	if n > 0 {
		runtime.GOMAXPROCS(n)
	}
	log.Debug("processors set", "gomaxprocs", runtime.GOMAXPROCS(0))
}
