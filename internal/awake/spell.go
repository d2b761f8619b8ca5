package awake

import (
	"sync/atomic"
	"time"
)

const (
	// lookAfter is how long after a look a spell is looked at again. One that has been touched before each of manyLooks is steady, and is looked at
	// seldom from then on, so that it costs nothing.
	lookAfter  = time.Millisecond
	lookSteady = 8 * time.Millisecond
	manyLooks  = 8
)

// The states of a spell. In those from quiet on a touch changes something.
const (
	// deaf: touches mean nothing.
	deaf int32 = iota
	// touched: it was touched since the last look.
	touched
	// quiet: it was not.
	quiet
	// over: it was not for so long that it has ended.
	over
)

// spell is a time that goes on for as long as it is touched again and again.
type spell struct {
	state atomic.Int32

	// on says that it has begun; looks counts how often it was found touched since. Both are the keeper's lock's.
	on    bool
	looks int
	timer *time.Timer
}

// touch touches it, and reports whether begin is to be called for that. It waits for nothing.
func (s *spell) touch() bool {
	for {
		switch was := s.state.Load(); was {
		case quiet, over:
			if s.state.CompareAndSwap(was, touched) {
				return was == over
			}
		default:
			return false
		}
	}
}

// begin begins it, unless that is done. Look is called again and again until the method look says that it has ended.
func (s *spell) begin(look func()) bool {
	if s.on || s.state.Load() == deaf {
		return false
	}
	s.on, s.looks = true, 0
	if s.timer == nil {
		s.timer = time.AfterFunc(lookAfter, look)
	} else {
		s.timer.Reset(lookAfter)
	}
	return true
}

// look reports whether it has ended.
func (s *spell) look() bool {
	for s.on {
		if s.state.CompareAndSwap(touched, quiet) {
			after := lookAfter
			if s.looks++; s.looks >= manyLooks {
				after = lookSteady
			}
			s.timer.Reset(after)
			return false
		}
		if s.state.CompareAndSwap(quiet, over) {
			s.on = false
			return true
		}
	}
	return false
}

func (s *spell) close() {
	s.state.Store(deaf)
	s.on = false
	if s.timer != nil {
		s.timer.Stop()
	}
}
