package keepalive

import "time"

const peakBuckets = 32

// Peak remembers the highest number within a window, to a thirtieth of it. The zero value is empty; its size never grows.
type Peak struct {
	width time.Duration
	since time.Time
	slot  [peakBuckets]int64
	most  [peakBuckets]int
}

// Observe records a number at an instant. A window other than the one before starts anew.
func (p *Peak) Observe(now time.Time, window time.Duration, v int) {
	if width := max(window/(peakBuckets-2), time.Millisecond); width != p.width {
		*p = Peak{width: width, since: now}
	}
	s := now.UnixNano() / int64(p.width)
	i := s % peakBuckets
	if p.slot[i] != s {
		p.slot[i], p.most[i] = s, v
	}
	p.most[i] = max(p.most[i], v)
}

// Max returns the highest number observed within the window that ends now; false while less than a window was observed.
func (p *Peak) Max(now time.Time) (int, bool) {
	if p.width == 0 || now.Sub(p.since) < p.width*(peakBuckets-2) {
		return 0, false
	}
	s := now.UnixNano() / int64(p.width)
	most := 0
	for i, at := range p.slot {
		if at > s-(peakBuckets-1) && at <= s {
			most = max(most, p.most[i])
		}
	}
	return most, true
}
