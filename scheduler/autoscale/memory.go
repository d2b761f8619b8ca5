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

// recent is the highest number within a window; it forgets late by an eighth of the window at most.
type recent struct {
	width time.Duration
	// most[i] is the highest number of one eighth, at[i] when it was observed last.
	at   [recentBuckets + 1]int64
	most [recentBuckets + 1]int
}

// observe records a number. What was observed with another window stays as old as it is.
func (r *recent) observe(now time.Time, window time.Duration, v int) {
	if width := max(window/recentBuckets, time.Millisecond); width != r.width {
		old := *r
		*r = recent{width: width}
		for i, at := range old.at {
			if at > 0 {
				r.put(at, old.most[i])
			}
		}
	}
	r.put(now.UnixNano(), v)
}

func (r *recent) put(at int64, v int) {
	bucket := at / int64(r.width)
	i := bucket % int64(len(r.at))
	if before := r.at[i] / int64(r.width); bucket > before || bucket == before && v >= r.most[i] {
		r.at[i], r.most[i] = at, v
	}
}

// max is the highest number of the window that ends now; something must have been observed.
func (r *recent) max(now time.Time) int {
	last := now.UnixNano() / int64(r.width)
	most := 0
	for i, at := range r.at {
		if bucket := at / int64(r.width); bucket >= last-recentBuckets && bucket <= last {
			most = max(most, r.most[i])
		}
	}
	return most
}
