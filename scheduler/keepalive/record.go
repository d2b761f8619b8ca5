package keepalive

import (
	"math"
	"time"
)

// The histogram's bins. The first holds what is shorter than a second; from there every doubling has four, up to twelve days, and the last
// holds what is longer.
const (
	octaves = 20
	bins    = 1 + 4*octaves + 1
	// remembered is how many idle times a record rests on; at twice that all counts are halved, so that what is new outweighs what is old.
	remembered = 512
	// cycles is how many cycles were compared when their counts are halved.
	cycles = 32
)

// Record is what is remembered of one function's idle times, in less than a kilobyte. The zero value is that of a function about which nothing is
// known.
type Record struct {
	count [bins]uint16
	n     int
	// logs sums the logarithms of the idle times in seconds.
	logs float64
	// cycle is the time from the beginning of one need to that of the next, the last one; hits and tries say how often it was as long as the one before.
	cycle       time.Duration
	hits, tries float64
	last        drawn
}

// drawn is what was last read from the histogram, and for what.
type drawn struct {
	plan Plan
	ask  Ask
	n    int
	// price is what a second of idleness costs, in cold starts avoided.
	price float64
}

// Observe remembers for how long the function was idle before it was needed again, and how long before that its need before began. A cycle of
// zero is one that is not known.
func (r *Record) Observe(idle, cycle time.Duration) {
	idle = max(idle, 0)
	r.count[bin(idle)]++
	r.n++
	r.logs += math.Log(max(idle.Seconds(), 0.5))
	if r.n >= 2*remembered {
		r.halve()
	}
	if cycle <= 0 {
		return
	}
	if r.cycle > 0 {
		r.tries++
		if d := cycle - r.cycle; d.Abs() <= tolerance(cycle) {
			r.hits++
		}
		if r.tries >= cycles {
			r.hits, r.tries = r.hits/2, r.tries/2
		}
	}
	r.cycle = cycle
}

// Len returns how many idle times the record rests on.
func (r *Record) Len() int { return r.n }

func (r *Record) halve() {
	mean := r.logs / float64(r.n)
	r.n, r.last.n = 0, -1
	for i := range r.count {
		r.count[i] /= 2
		r.n += int(r.count[i])
	}
	r.logs = mean * float64(r.n)
}

// bin finds the place of an idle time: the exponent and the first two bits of the mantissa of its seconds.
func bin(d time.Duration) int {
	if d < time.Second {
		return 0
	}
	return min(1+int(math.Float64bits(d.Seconds())>>50)-1023<<2, bins-1)
}

// edge is where a bin begins, in seconds.
func edge(i int) float64 {
	if i == 0 {
		return 0
	}
	return math.Float64frombits(uint64(i-1+1023<<2) << 50)
}

// tolerance is by how much two cycles may differ and count as equally long: two seconds or a five-hundredth, but never a sixteenth, within
// which two chance ones would often lie.
func tolerance(cycle time.Duration) time.Duration {
	return min(max(2*time.Second, cycle/500), cycle/16)
}
