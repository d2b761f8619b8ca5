package sim

import (
	"cmp"
	"slices"
	"time"
)

// Call is an invocation: when it comes and how long it runs, in milliseconds.
type Call struct{ At, Run uint32 }

// App is an application, what is kept warm or not as one.
type App struct {
	Name string
	// Memory is what an instance holds, in bytes.
	Memory int64
	// Calls are in the order in which they come.
	Calls []Call
}

// Trace is what comes to a site.
type Trace struct {
	Length time.Duration
	Apps   []App
}

// Invocations counts all calls.
func (t *Trace) Invocations() int {
	n := 0
	for i := range t.Apps {
		n += len(t.Apps[i].Calls)
	}
	return n
}

// need is a stretch of time, in milliseconds, in which calls of an application run without a gap, and how long the first of them runs.
type need struct{ from, to, run, calls uint32 }

// needs joins the calls that overlap.
func (a *App) needs() []need {
	var out []need
	for _, c := range a.Calls {
		if n := len(out); n > 0 && c.At <= out[n-1].to {
			last := &out[n-1]
			last.to = max(last.to, c.At+c.Run)
			last.calls++
			continue
		}
		out = append(out, need{c.At, c.At + c.Run, c.Run, 1})
	}
	return out
}

// Site is a trace made ready to be played many times.
type Site struct {
	length uint32
	memory []int64
	needs  [][]need
}

// NewSite prepares a trace; it keeps nothing of it.
func NewSite(t *Trace) *Site {
	s := &Site{length: uint32(t.Length.Milliseconds())}
	for i := range t.Apps {
		s.memory = append(s.memory, t.Apps[i].Memory)
		s.needs = append(s.needs, t.Apps[i].needs())
	}
	return s
}

func sortCalls(calls []Call) {
	slices.SortFunc(calls, func(a, b Call) int { return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(a.Run, b.Run)) })
}
