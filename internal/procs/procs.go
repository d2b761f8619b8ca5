// Package procs says how many threads of this process may run Go code at once.
//
// There are two reasons for more of them than processors. A server waits for the disk nearly all the time that work is handed over: for each sync
// one thread is in the kernel, and Go takes the processor that it had for busy until some tens of microseconds later, or many more where its watcher
// sleeps. And the collector gets a quarter of them: of less than four a quarter is no whole one, so that it takes turns with requests, and those
// behind it wait for up to ten milliseconds. With a thread of its own the kernel divides the processors there are, in shorter turns.
package procs

import (
	"log/slog"
	"runtime"
)

// least is the fewest of which the collector gets a whole one.
const least = 4

// Choose returns how many there should be where the process may use n processors: one more than that, and four at least. Where the user says it
// (GOMAXPROCS), that stands, and 0 is returned.
func Choose(n int, getenv func(string) string) int {
	if getenv("GOMAXPROCS") != "" {
		return 0
	}
	return max(least, n+1)
}

// Apply sets the number for this process; 0 changes nothing. From then on Go no longer follows the limits of the cgroup as they change.
func Apply(n int, log *slog.Logger) {
	if n > 0 {
		runtime.GOMAXPROCS(n)
	}
	log.Debug("threads that run at once set", "gomaxprocs", runtime.GOMAXPROCS(0))
}
