package keepalive

import "time"

// apart is how long nothing must be heard of a need for it to be over: gateways repeat it once a second while it lasts.
const apart = 2500 * time.Millisecond

// Rhythm makes a function's record out of the times at which it is known to be needed. The zero value has none.
type Rhythm struct {
	Record
	// begun is when the last need began, last when it was heard of last.
	begun, last time.Time
	// stored is what last was when it was written down; away says that needs after last may have gone unheard.
	stored time.Time
	away   bool
}

// Needed tells that the function is needed, or was, at an instant, and reports whether an idle time is known by it that was not before. An instant
// before the last one that was told changes nothing.
func (r *Rhythm) Needed(at time.Time) (learnt bool) {
	idle := at.Sub(r.last)
	switch {
	case r.last.IsZero():
		r.begun = at
	case idle <= 0:
		return false
	case r.away:
		r.begun = at
	case idle >= apart:
		r.Observe(idle, at.Sub(r.begun))
		r.begun, learnt = at, true
	}
	r.last, r.away = at, false
	return learnt
}

// Busy returns how long the last need lasted.
func (r *Rhythm) Busy() time.Duration { return r.last.Sub(r.begun) }
