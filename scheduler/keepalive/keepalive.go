package keepalive

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/tatami-faas/tatami/functions"
)

// Instance is an instance that takes requests, as keep-alive sees it.
type Instance struct {
	ID functions.InstanceID
	// Busy says that a slot is held, or that it is not known to be free.
	Busy bool
	// LastUsed is when a slot was last given back, or when the instance became ready if none ever was.
	LastUsed time.Time
}

// Policy is what holds for the function's instances.
type Policy struct {
	// Desired is how many the load needs now, Peak the most it needed within the last KeepAlive.
	Desired, Peak int
	KeepAlive     time.Duration
	// Why stands for the keep-alive in the reasons where it is not a fixed time.
	Why string
}

// words are those of the reasons about the keep-alive.
func (p *Policy) words() string {
	if p.Why != "" {
		return p.Why
	}
	return "keep-alive " + functions.Duration(p.KeepAlive).String()
}

// Choice is an instance to be stopped.
type Choice struct {
	ID     functions.InstanceID
	Reason string
}

// Surplus names the instances to stop: never more than exceed Desired, never a busy one, the least recently used first. An instance goes
// when it was idle for KeepAlive, or when so many were not needed at any time within KeepAlive.
func Surplus(now time.Time, instances []Instance, p Policy) []Choice {
	over := len(instances) - p.Desired
	if over <= 0 {
		return nil
	}
	overPeak := len(instances) - max(p.Peak, p.Desired)
	var out []Choice
	for _, in := range ordered(instances) {
		if len(out) >= over {
			break
		}
		if in.Busy {
			continue
		}
		idle := now.Sub(in.LastUsed)
		switch {
		case idle >= p.KeepAlive:
			out = append(out, Choice{in.ID, fmt.Sprintf("idle for %s, %s", functions.Duration(idle.Round(time.Second)), p.words())})
		case len(out) < overPeak:
			out = append(out, Choice{in.ID, fmt.Sprintf("not needed for %s: at most %d were", functions.Duration(p.KeepAlive), max(p.Peak, p.Desired))})
		}
	}
	return out
}

// ordered sorts by last use, the longest ago first; the id decides between equals.
func ordered(instances []Instance) []Instance {
	out := slices.Clone(instances)
	slices.SortFunc(out, func(a, b Instance) int {
		return cmp.Or(a.LastUsed.Compare(b.LastUsed), cmp.Compare(a.ID, b.ID))
	})
	return out
}
