package awake

import "time"

const (
	// startShare is the part of the time, one of so many, for which starts may keep processors awake, up to mostStart in one go. It does not begin for
	// less than leastStart.
	startShare = 10
	mostStart  = 500 * time.Millisecond
	leastStart = 20 * time.Millisecond
)

// starts are the functions that start. Where starts go on and on the processors hardly sleep, and are left alone: starts keep them awake for a share of
// the time only.
type starts struct {
	n int
	// left is how long they may keep them awake, of mostStart, as of at; since is when that began, zero while they do not.
	left      time.Duration
	at, since time.Time
	timer     *time.Timer
}

// count notes that more functions start, or fewer. Cut is called, with what since was then, when they have had what they may have.
func (s *starts) count(n int, now time.Time, cut func(since time.Time)) {
	before := s.n
	s.n += n
	switch {
	case before == 0 && s.n > 0:
		s.begin(now, cut)
	case before > 0 && s.n == 0:
		s.end(now)
	}
}

func (s *starts) begin(now time.Time, cut func(since time.Time)) {
	s.left = min(mostStart, s.left+now.Sub(s.at)/startShare)
	if s.at = now; s.left < leastStart {
		return
	}
	s.since = now
	s.timer = time.AfterFunc(s.left, func() { cut(now) })
}

func (s *starts) end(now time.Time) {
	if s.since.IsZero() {
		return
	}
	s.timer.Stop()
	s.left, s.at, s.since = max(0, s.left-now.Sub(s.since)), now, time.Time{}
}
