package autoscale

import (
	"slices"
	"time"
)

// Silence is how long a gateway's last statement holds.
const Silence = 3 * time.Second

// seconds is how many buckets a History has at least: the longest default window and the second under way.
const seconds = int(MaxWindow/time.Second) + 4

// History is a function's concurrency as its gateways state it, in buckets of a second: within each bucket a gateway's statements are
// weighted by their time, and the gateways add up. The zero value is empty. It remembers a minute, or as much as Keep asked for.
type History struct {
	ring []bucket
	// open holds the gateways' last statements: what is since them is not in the ring yet.
	open []statement
	// first is when what is remembered begins, last when it ends.
	first, last time.Time
}

// bucket is concurrency x time within one second.
type bucket struct {
	second int64
	area   float64
}

type statement struct {
	gateway string
	at      time.Time
	level   float64
}

// Keep makes it remember a window of that length from now on.
func (h *History) Keep(window time.Duration) {
	n := int((window+time.Second-1)/time.Second) + 4
	if n <= max(len(h.ring), seconds) {
		return
	}
	h.resize(n)
}

func (h *History) resize(n int) {
	old := h.ring
	h.ring = make([]bucket, n)
	for _, b := range old {
		if at := &h.ring[b.second%int64(n)]; b.second >= at.second {
			*at = b
		}
	}
}

// State records a gateway's statement: the mean concurrency since its statement before, and the level that holds from now on. Where there
// is none before, within Silence, the mean is of a time that is not known and counts for nothing. A time is counted once whatever is stated.
func (h *History) State(gateway string, at time.Time, mean, level float64) {
	if h.ring == nil {
		h.resize(seconds)
	}
	if at.Before(h.last) {
		at = h.last
	}
	if h.first.IsZero() || at.Sub(h.last) > time.Duration(len(h.ring))*time.Second {
		h.first = at
	}
	h.open = slices.DeleteFunc(h.open, func(s statement) bool { return at.Sub(s.at) > Silence && s.gateway != gateway })
	i := slices.IndexFunc(h.open, func(s statement) bool { return s.gateway == gateway })
	if i < 0 {
		h.open = append(h.open, statement{gateway, at, level})
	} else {
		s := &h.open[i]
		if at.Sub(s.at) <= Silence {
			h.add(s.at, at, mean)
		}
		s.at, s.level = at, level
	}
	h.last = at
}

// Drop records that a gateway states nothing of the function any more.
func (h *History) Drop(gateway string) {
	h.open = slices.DeleteFunc(h.open, func(s statement) bool { return s.gateway == gateway })
}

func (h *History) add(from, to time.Time, level float64) {
	n := int64(len(h.ring))
	for from.Before(to) {
		end := from.Truncate(time.Second).Add(time.Second)
		if end.After(to) {
			end = to
		}
		second := from.Unix()
		if b := &h.ring[second%n]; b.second <= second {
			if b.second < second {
				*b = bucket{second: second}
			}
			b.area += level * end.Sub(from).Seconds()
		}
		from = end
	}
}

// Mean returns the mean concurrency over the window that ends now, and how long that is: it begins with a whole second, up to one earlier.
// As long as less is known, it is the mean over what is known, over MinWindow (or the window) at least: one long invocation is no
// steady load.
func (h *History) Mean(now time.Time, window time.Duration) (mean float64, over time.Duration) {
	if h == nil || h.first.IsZero() {
		return 0, window
	}
	last := now.Unix()
	first := last - int64(window/time.Second)
	var sum float64
	for _, b := range h.ring {
		if b.second >= first && b.second <= last {
			sum += b.area
		}
	}
	begin := time.Unix(first, 0)
	for _, s := range h.open {
		from := s.at
		if from.Before(begin) {
			from = begin
		}
		if since := now.Sub(s.at); since > 0 && since <= Silence {
			sum += s.level * now.Sub(from).Seconds()
		}
	}
	over = min(now.Sub(begin), max(now.Sub(h.first), MinWindow))
	return sum / over.Seconds(), over
}
