package keepalive

import (
	"cmp"
	"slices"
	"time"

	"github.com/tatami-faas/tatami/functions"
)

// Idle is an idle instance that may make room for another.
type Idle struct {
	ID functions.InstanceID
	// Value is what keeping it is worth.
	Value     float64
	LastUsed  time.Time
	Resources functions.Resources
}

// unknownStart is what a cold start is taken for that was never measured, leastStart the least that counts.
const (
	unknownStart = 500 * time.Millisecond
	leastStart   = time.Millisecond
)

// Value says what keeping an idle instance is worth, by the greedy-dual rule: how often it was used times what starting another takes, by its share of
// all there is, on top of the clock at its last use. The clock is the highest value that was given up so far: what was not used since then
// falls behind what is used now, however often it was used before. Start is zero where it was never measured.
func Value(clock float64, uses int, start time.Duration, share float64) float64 {
	if start == 0 {
		start = unknownStart
	}
	worth := float64(uses) * max(start, leastStart).Seconds() / max(share, 1e-9)
	return clock + worth
}

// ByValue orders by value, then by last use, then by id.
func ByValue(a, b Idle) int {
	return cmp.Or(cmp.Compare(a.Value, b.Value), a.LastUsed.Compare(b.LastUsed), cmp.Compare(a.ID, b.ID))
}

// Cheapest names those of the instances, which are in the order of ByValue, whose end makes need fit into free, and what they are worth together:
// one alone, or the least valuable ones less those that prove needless, whichever is worth less. It names none when all of them do not suffice.
func Cheapest(idle []Idle, need, free functions.Resources) (chosen []Idle, total float64) {
	most := -1
	for i, sum := 0, free; i < len(idle); i++ {
		if sum = sum.Add(idle[i].Resources); need.Fits(sum) {
			most, free = i, sum
			break
		}
	}
	if most < 0 {
		return nil, 0
	}
	before := free
	for i := range most + 1 {
		before = before.Sub(idle[i].Resources)
	}
	chosen = slices.Clone(idle[:most+1])
	for i := most; i >= 0; i-- {
		if without := free.Sub(chosen[i].Resources); need.Fits(without) {
			free = without
			chosen = slices.Delete(chosen, i, i+1)
		}
	}
	for _, in := range chosen {
		total += in.Value
	}
	for _, in := range idle {
		if in.Value >= total {
			break
		}
		if need.Fits(before.Add(in.Resources)) {
			return []Idle{in}, in.Value
		}
	}
	return chosen, total
}
