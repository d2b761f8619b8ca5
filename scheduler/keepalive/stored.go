package keepalive

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/tatami-faas/tatami/functions"
)

// Store writes the rhythm into a record to be kept over a restart.
func (r *Rhythm) Store(to *functions.IdleTimes) {
	last := len(r.count)
	for last > 0 && r.count[last-1] == 0 {
		last--
	}
	to.Counts = nil
	for _, n := range r.count[:last] {
		to.Counts = binary.AppendUvarint(to.Counts, uint64(n))
	}
	to.Logs, to.Cycle, to.Hits, to.Tries = r.logs, functions.Duration(r.cycle), r.hits, r.tries
	to.Begun, to.Ended = r.begun, r.last
	r.stored = r.last
}

// Stored reports whether nothing is known that the last record written by Store does not say.
func (r *Rhythm) Stored() bool { return r.stored.Equal(r.last) }

// Restore reads a rhythm from a record that Store wrote before a restart. What was needed in between nobody heard: the next need counts as the
// beginning of one, and not as the end of an idle time. A record that cannot be is refused.
func Restore(t *functions.IdleTimes) (*Rhythm, error) {
	bad := func(field string, v any) (*Rhythm, error) {
		return nil, fmt.Errorf("the idle times of %s: %s cannot be %v", t.Ref(), field, v)
	}
	r := &Rhythm{begun: t.Begun, last: t.Ended, stored: t.Ended, away: true}
	for i, left := 0, t.Counts; len(left) > 0; i++ {
		n, width := binary.Uvarint(left)
		if width <= 0 || i >= bins || n >= 2*remembered {
			return bad("counts", t.Counts)
		}
		r.count[i], left = uint16(n), left[width:]
		r.n += int(n)
	}
	r.logs, r.cycle, r.hits, r.tries = t.Logs, t.Cycle.Std(), t.Hits, t.Tries
	switch {
	case r.n >= 2*remembered:
		return bad("counts", t.Counts)
	case !(math.Abs(r.logs) <= float64(r.n)*logsMost):
		return bad("logs", t.Logs)
	case r.cycle < 0:
		return bad("cycle", t.Cycle)
	case !(r.tries >= 0 && r.tries <= cycles):
		return bad("tries", t.Tries)
	case !(r.hits >= 0 && r.hits <= r.tries):
		return bad("hits", t.Hits)
	case t.Ended.IsZero() || t.Ended.Before(t.Begun):
		return bad("ended", t.Ended)
	}
	return r, nil
}

// logsMost is the logarithm of more seconds than a time.Duration holds.
const logsMost = 24

// Last returns when a need was heard of last.
func (r *Rhythm) Last() time.Time { return r.last }

// Reopen sets the price to what it was before a restart, if it can be one.
func (m *Market) Reopen(price float64) {
	if price >= lowest && price <= highest {
		m.price = price
	}
}
