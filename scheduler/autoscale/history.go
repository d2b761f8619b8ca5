package autoscale

import "time"

// seconds is how many samples a History holds: the longest window and the second under way.
const seconds = 64

// History is the concurrency of the last minute, one sample a second. The zero value is empty; its size never grows.
type History struct {
	// area[i] is concurrency x time within the second slot[i], as Unix seconds.
	area  [seconds]float64
	slot  [seconds]int64
	first time.Time
	last  time.Time
}

// Add records that the concurrency was level between two instants, in addition to what was recorded for that time: several
// gateways add up. Time before the kept minute is dropped.
func (h *History) Add(from, to time.Time, level float64) {
	if h.first.IsZero() {
		h.first = from
	}
	if to.After(h.last) {
		h.last = to
	}
	if oldest := to.Add(-(seconds - 1) * time.Second); from.Before(oldest) {
		from = oldest
	}
	for from.Before(to) {
		end := from.Truncate(time.Second).Add(time.Second)
		if end.After(to) {
			end = to
		}
		s := from.Unix()
		if s < h.last.Unix()-seconds+1 {
			from = end
			continue
		}
		i := s % seconds
		if h.slot[i] != s {
			h.slot[i], h.area[i] = s, 0
		}
		h.area[i] += level * end.Sub(from).Seconds()
		from = end
	}
}

// settled is how long after the last sample the window still ends there: samples come about once a second.
const settled = 1500 * time.Millisecond

// Mean returns the mean concurrency over the window that ends now. As long as less is known than the window, it is the mean over
// what is known, over one second at least.
func (h *History) Mean(now time.Time, window time.Duration) float64 {
	if h.first.IsZero() {
		return 0
	}
	end := now
	if now.Sub(h.last) < settled {
		end = h.last
	}
	window = min(window, (seconds-1)*time.Second)
	lastSlot := end.Unix()
	firstSlot := lastSlot - int64(window/time.Second) + 1
	var sum float64
	for i, s := range h.slot {
		if s >= firstSlot && s <= lastSlot {
			sum += h.area[i]
		}
	}
	covered := end.Sub(time.Unix(firstSlot, 0))
	covered = min(covered, end.Sub(h.first))
	return sum / max(covered.Seconds(), 1)
}
