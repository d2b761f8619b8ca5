package remote

import (
	"sync/atomic"
	"time"
)

const (
	// lookEvery is how often a session looks at the slots that it keeps: what nobody needed since the last look is given back.
	lookEvery = 50 * time.Millisecond
	// wordLooks is for how many looks a worker's word holds that slots may be kept. After that it is asked again, by the next call.
	wordLooks = 20
	// sureFor is how long after a sign of life a worker is taken to live, for what is sent to it without a question.
	sureFor = 5 * time.Millisecond
)

// life is when a session's worker gave a sign of life last.
type life struct {
	born time.Time
	// last is how long after born that was.
	last atomic.Int64
}

// sign notes that something came from the worker.
func (l *life) sign() { l.last.Store(int64(time.Since(l.born))) }

// sure reports whether something came a moment ago.
func (l *life) sure() bool { return time.Since(l.born)-time.Duration(l.last.Load()) < sureFor }

// holding is what a session has of an instance's slots. A slot that a call gave back is kept for the next one where the worker says that it may be, so that
// neither asks: the question would take as long as the call.
type holding struct {
	// lent are with callers, kept wait for one; least is the fewest that were kept since the last look.
	lent, kept, least int
	// keep is the worker's last word, looks how old that is.
	keep  bool
	looks int
}

// granted takes in a slot that the worker gave, for a caller, and the word that came with it.
func (h *holding) granted(keep bool) {
	h.lent++
	h.keep, h.looks = keep, 0
}

// lend gives a caller one of the slots that are kept.
func (h *holding) lend() {
	h.lent++
	h.unkeep()
}

// unkeep keeps one slot less.
func (h *holding) unkeep() {
	h.kept--
	h.least = min(h.least, h.kept)
}

// back takes a slot from a caller, and reports whether it is kept; if not it is the worker's.
func (h *holding) back() bool {
	h.lent--
	if h.keep {
		h.kept++
	}
	return h.keep
}

// look returns how many slots are the worker's from now on.
func (h *holding) look() int {
	if h.looks++; h.looks >= wordLooks {
		h.keep = false
	}
	n := h.least
	h.kept -= n
	h.least = h.kept
	return n
}

// recalled ends the keeping: the next look gives all back.
func (h *holding) recalled() { h.keep, h.least = false, h.kept }

// over reports whether nothing is left to hold.
func (h *holding) over() bool { return h.lent+h.kept == 0 }
