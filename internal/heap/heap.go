package heap

import (
	"fmt"
	"log/slog"
	"runtime/debug"
)

const (
	// percent is by how much the heap grows between two collections while it is far from its target. Go collects every two minutes anyway.
	percent = 1000
	// leastTarget is what any server may take; a machine's share is a thirteenth, which is three quarters of what is kept from functions by default.
	leastTarget = 384 << 20
	share       = 13
)

// Target is the memory that a process which may have so much of it should stay within by default, in bytes; 0 where the former is not known.
func Target(memory int64) int64 {
	return min(max(memory/share, leastTarget), max(memory, 0)/2)
}

// Setting is how the collector is set. A zero field leaves what Go does by itself.
type Setting struct {
	// Percent is as GOGC: by how much the heap grows between two collections.
	Percent int
	// Limit is as GOMEMLIMIT: near so many bytes the collector works as often as it must.
	Limit int64
}

// Choose sets the collector for a target in bytes; without one it changes nothing. What the user says goes first: with GOGC set it changes nothing,
// and GOMEMLIMIT is the target where that is set.
func Choose(target int64, getenv func(string) string) Setting {
	switch {
	case getenv("GOGC") != "":
		return Setting{}
	case getenv("GOMEMLIMIT") != "":
		return Setting{Percent: percent}
	case target <= 0:
		return Setting{}
	}
	return Setting{Percent: percent, Limit: target}
}

// Apply sets the collector of this process.
func (s Setting) Apply(log *slog.Logger) {
	if s.Percent > 0 {
		debug.SetGCPercent(s.Percent)
	}
	if s.Limit > 0 {
		debug.SetMemoryLimit(s.Limit)
	}
	log.Debug("collector set", "percent", s.Percent, "limit", fmt.Sprintf("%d MiB", s.Limit>>20))
}
