package keepalive

import (
	"cmp"
	"math"
	"time"
)

// The bounds of the price of idle memory, in seconds of waiting for a GiB hour, and where it begins.
const (
	lowest, highest, opening = 0.25, 1000, 8
	// swing is how long idle memory must be twice what the budget allows for the price to grow e times.
	swing = 30 * time.Minute
)

// Market finds the price of idle memory at which as much is kept idle as a budget allows: it rises while there is more and falls while there is
// less. The zero value is at the opening price.
type Market struct {
	price float64
	at    time.Time
}

// Price returns what a GiB kept idle for an hour costs now, in seconds of waiting, in steps of an eighth, so that plans need not change all the time.
func (m *Market) Price() float64 {
	if m.price == 0 {
		return opening
	}
	return math.Exp(math.Round(math.Log(m.price)*8) / 8)
}

// Adjust tells how much memory is idle at an instant and how much may be.
func (m *Market) Adjust(now time.Time, idle, budget int64) {
	if m.at.IsZero() {
		m.at, m.price = now, cmp.Or(m.price, opening)
	}
	passed := min(now.Sub(m.at), time.Minute)
	m.at = now
	if passed <= 0 {
		return
	}
	excess := min(float64(idle)/float64(max(budget, 1))-1, 1)
	m.price = min(max(m.price*math.Exp(excess*float64(passed)/float64(swing)), lowest), highest)
}
