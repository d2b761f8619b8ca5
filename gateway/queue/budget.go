package queue

import "time"

// budget bounds the retries of one function: a share of its first attempts, and some a second whatever happens. A retry beyond it waits until there
// is room for it, so that a function that fails adds little to its own load.
type budget struct {
	// share is what a first attempt adds, floor what a second adds, most what may be saved up.
	share, floor, most float64
	// saved is what is there; below zero it is what waiting retries have taken in advance.
	saved float64
	at    time.Time
	// pace is how much is added in a second, first attempts of late included.
	pace   float64
	firsts int
	since  time.Time
}

// paceWindow is over how long first attempts are counted.
const paceWindow = time.Second

// tick adds what the time since the last call brought.
func (b *budget) tick(now time.Time) {
	if b.at.IsZero() {
		b.at, b.since, b.pace = now, now, b.floor
	}
	if d := now.Sub(b.at); d > 0 {
		b.saved = min(b.saved+d.Seconds()*b.floor, b.most)
		b.at = now
	}
	if d := now.Sub(b.since); d >= paceWindow {
		b.pace = b.floor + b.share*float64(b.firsts)/d.Seconds()
		b.firsts, b.since = 0, now
	}
}

// first notes a first attempt.
func (b *budget) first(now time.Time) {
	b.tick(now)
	b.firsts++
	b.saved = min(b.saved+b.share, b.most)
}

// take says how long a retry has to wait at least.
func (b *budget) take(now time.Time) time.Duration {
	b.tick(now)
	b.saved--
	if b.saved >= 0 {
		return 0
	}
	return time.Duration(-b.saved / b.pace * float64(time.Second))
}

// drain is how fast a queue has become shorter of late.
type drain struct {
	rate  float64
	ended int
	since time.Time
}

const (
	// leastWait and mostWait bound what a caller is told to wait for a place in a full queue.
	leastWait = time.Second
	mostWait  = 5 * time.Minute
)

// end notes that an invocation has ended.
func (d *drain) end(now time.Time) {
	if d.since.IsZero() {
		d.since = now
	}
	d.ended++
	if took := now.Sub(d.since); took >= paceWindow {
		d.rate = (d.rate + float64(d.ended)/took.Seconds()) / 2
		d.ended, d.since = 0, now
	}
}

// wait is how long until so many have ended.
func (d *drain) wait(now time.Time, n int) time.Duration {
	rate := d.rate
	if took := now.Sub(d.since); !d.since.IsZero() && took > paceWindow {
		// It has become slower since, or has stopped.
		rate = min(rate, float64(d.ended)/took.Seconds())
	} else if rate == 0 && !d.since.IsZero() {
		rate = float64(d.ended)
	}
	if rate <= 0 {
		return mostWait / 10
	}
	return min(max(time.Duration(float64(n)/rate*float64(time.Second)), leastWait), mostWait)
}
