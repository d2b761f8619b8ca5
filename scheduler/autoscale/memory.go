package autoscale

import "time"

// Memory is what a decision leaves for the next one. The zero value is that of a function about which nothing was decided.
type Memory struct {
	// Panic is when load was last above the threshold; zero while there is no surge.
	Panic time.Time
	// Peak is the most that the load needed in the surge.
	Peak int
	// Desired is what was decided.
	Desired int
	// Fell is when Desired last fell.
	Fell time.Time
	// steady is what the steady load needed.
	steady int
	wanted recent
}

// InPanic reports whether there is a surge.
func (m Memory) InPanic() bool { return !m.Panic.IsZero() }

const recentBuckets = 8

// recent is the highest number within a window; it forgets late by an eighth of the window at most, never early.
type recent struct {
	width time.Duration
	slot  [recentBuckets + 1]int64
	most  [recentBuckets + 1]int
}

// observe records a number. With another window than before only the highest so far goes on, as of now.
func (r *recent) observe(now time.Time, window time.Duration, v int) {
	if width := max(window/recentBuckets, time.Millisecond); width != r.width {
		if r.width != 0 {
			v = max(v, r.max(now))
		}
		*r = recent{width: width}
	}
	s := now.UnixNano() / int64(r.width)
	i := s % int64(len(r.slot))
	if r.slot[i] != s {
		r.slot[i], r.most[i] = s, v
	}
	r.most[i] = max(r.most[i], v)
}

// max is the highest number of the window that ends now; something must have been observed.
func (r *recent) max(now time.Time) int {
	s := now.UnixNano() / int64(r.width)
	most := 0
	for i, at := range r.slot {
		if at >= s-recentBuckets && at <= s {
			most = max(most, r.most[i])
		}
	}
	return most
}
