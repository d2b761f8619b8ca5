//go:build linux

package containerd

import "time"

// yield says for how long the filling of a pool gives way to starts, which the processors belong to first. A burst is soon over. Where starts go
// on, to give way only puts off what has to be done, while the pool runs empty: then each sandbox that is taken is made anew at once, until no
// start has begun for yieldTime.
type yield struct {
	// last is when the last start began.
	last time.Time
	// behind is since when sandboxes have been wanting, or starts have gone on meanwhile; zero: none is.
	behind time.Time
	over   bool
}

// started notes that a start begins.
func (y *yield) started(now time.Time) {
	if now.Sub(y.last) > yieldTime {
		// The first after a pause has the processors, however long the pool has been in want.
		y.behind = time.Time{}
	}
	y.last = now
}

// ended reports whether the pool no longer gives way: wanting says whether it is in want of sandboxes, low whether it has few left.
func (y *yield) ended(now time.Time, wanting, low bool) bool {
	switch {
	case !wanting:
		y.behind = time.Time{}
	case y.behind.IsZero():
		y.behind = now
	}
	y.over = wanting && low || y.long(now) || y.over && now.Sub(y.last) <= yieldTime
	return y.over
}

// long reports whether sandboxes have been wanting for yieldTime.
func (y *yield) long(now time.Time) bool { return !y.behind.IsZero() && now.Sub(y.behind) >= yieldTime }
