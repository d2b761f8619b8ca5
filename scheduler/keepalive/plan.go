package keepalive

import (
	"fmt"
	"math"
	"time"

	"github.com/tatami-faas/tatami/functions"
)

// The tuning of plans, the same for every function and site. It was chosen on one generated trace; see scheduler/sim.
const (
	// beforeMean is the idle time, in seconds, that a function is taken to have before any was seen; it weighs as much as one that was.
	beforeMean = 900
	// prior is how many idle times the assumption about their distribution counts for: falling odds about the function's mean.
	prior = 1
	// restart is what starting an instance ahead of its need costs beside a cold start that somebody waits for.
	restart = 0.03
	// rare is the mean idle time, in seconds, with which a cold start counts twice as one of a function that is never idle: a rarely
	// used function would see cold starts only. It counts more the rarer it is, until the mean is rarest.
	rare, rarest = 700, 7200
	// hunch is how likely the first cycle of a function is taken to repeat itself, sure from which share on it is called periodic, of so
	// many cycles at least.
	hunch, sure, sureOf = 0.1, 0.6, 2
)

// Ask is what a plan is made for.
type Ask struct {
	// Price is what a GiB kept idle for an hour costs, in seconds of somebody's waiting for a cold start.
	Price float64
	// Memory is what an instance holds, in bytes; Start is how long a cold start takes.
	Memory int64
	Start  time.Duration
	// Floor and Ceiling bound for how long an instance is kept idle at a time.
	Floor, Ceiling time.Duration
	// Busy is how long the need lasted that is over now.
	Busy time.Duration
}

// Plan says at which ages, which is the time since the last need, a function has an instance though nobody needs it: until Keep, and from
// From until Until; that second stretch is empty where both are zero.
type Plan struct {
	Keep, From, Until time.Duration
	// Of is how many idle times it rests on, Periodic says that they repeat themselves.
	Of       int
	Periodic bool
}

// Warm reports whether there should be an instance at an age.
func (p Plan) Warm(age time.Duration) bool { return age < p.Keep || age >= p.From && age < p.Until }

// Next returns the age after the given one at which Warm changes; zero when it does not.
func (p Plan) Next(age time.Duration) time.Duration {
	for _, edge := range []time.Duration{p.Keep, p.From, p.Until} {
		if age < edge && (edge == p.Keep || p.Until > p.Keep) {
			return edge
		}
	}
	return 0
}

// Idle returns for how much of an idle time the plan has an instance.
func (p Plan) Idle(idle time.Duration) time.Duration {
	return min(idle, p.Keep) + max(0, min(idle, p.Until)-max(p.From, p.Keep))
}

// String says the choice in a sentence.
func (p Plan) String() string {
	why := fmt.Sprintf("from %d idle times", p.Of)
	switch {
	case p.Periodic:
		why = "it is needed at regular times"
	case p.Of == 0:
		why = "none of its idle times is known yet"
	}
	keep := fmt.Sprintf("kept %s after the last need", rounded(p.Keep))
	if p.Until > p.Keep {
		keep += fmt.Sprintf(" and started again for %s to %s after it", rounded(p.From), rounded(p.Until))
	}
	return keep + ": " + why
}

func rounded(d time.Duration) functions.Duration {
	if d >= time.Minute {
		return functions.Duration(d.Round(time.Second))
	}
	return functions.Duration(d.Round(100 * time.Millisecond))
}

// Plan weighs at every age the odds that the function is needed against the price of holding its memory until then. Its cost is constant;
// the histogram is read anew only when the record grew by a sixteenth or the ask changed.
func (r *Record) Plan(a Ask) Plan {
	key := a
	key.Busy = 0
	if l := &r.last; l.price == 0 || l.ask != key || l.n < 0 || r.n > l.n+l.n/16 {
		*l = drawn{ask: key, n: r.n, price: r.price(&a)}
		l.plan = r.draw(l.price, &a)
	}
	return r.cyclic(r.last.plan, r.last.price, &a)
}

// price is what keeping an instance idle for a second costs, in cold starts avoided; never zero.
func (r *Record) price(a *Ask) float64 {
	worth := max(a.Start.Seconds(), 0.01) * (1 + min(r.mean(), rarest)/rare)
	return max(a.Price*float64(a.Memory)/float64(functions.GiB)/3600/worth, 1e-12)
}

// mean is the geometric mean of the idle times in seconds.
func (r *Record) mean() float64 {
	return math.Exp((r.logs + math.Log(beforeMean)) / float64(r.n+1))
}

// draw finds the stretch from the beginning, and the one after it, in which the cold starts avoided outweigh the price the most.
func (r *Record) draw(price float64, a *Ask) Plan {
	mean := r.mean()
	var gain, alive [bins - 1]float64
	left := r.n
	for i := range gain {
		from, to, n := edge(i), edge(i+1), float64(r.count[i])
		x, y := 1/(1+from/mean), 1/(1+to/mean)
		events := n + prior*(x*x-y*y)
		held := (to-from)*(float64(left)-n/2) + prior*mean*(x-y)
		gain[i] = events - price*held
		alive[i] = float64(left) + prior*x*x
		left -= int(r.count[i])
	}
	keep, best, sum := 0, 0.0, 0.0
	for i, g := range gain {
		if sum += g; sum > best {
			best, keep = sum, i+1
		}
	}
	p := Plan{Of: r.n, Keep: bound(seconds(edge(keep)), a)}
	best, sum = 0, 0
	from := -1
	for i := keep + 1; i < len(gain); i++ {
		if cost := -restart * alive[i]; from < 0 || sum <= cost {
			sum, from = cost, i
		}
		if sum += gain[i]; sum > best {
			best = sum
			p.From, p.Until = seconds(edge(from)), seconds(edge(i+1))
		}
	}
	p.Until = min(p.Until, p.From+a.Ceiling)
	return p.joined(a)
}

// cyclic adds to what the histogram says what the last cycle does: that the next one may be as long.
func (r *Record) cyclic(p Plan, price float64, a *Ask) Plan {
	if r.cycle <= 0 {
		return p
	}
	odds := (r.hits + hunch) / (r.tries + 1)
	slack := tolerance(r.cycle)
	due := r.cycle - a.Busy
	from, until := due-slack-a.Start, due+slack
	gain := odds - restart - price*(until-from).Seconds()
	if r.tries < sureOf || odds <= sure {
		if gain > 0 && from > p.Keep && p.Until == 0 {
			p.From, p.Until = from, until
		}
		return p
	}
	stay := odds - price*until.Seconds()
	p = Plan{Of: p.Of, Periodic: true, Keep: a.Floor}
	switch {
	case from <= 0 || stay > max(gain, 0):
		p.Keep = bound(until, a)
	case gain > 0:
		p.From, p.Until = from, until
	}
	return p.joined(a)
}

// joined makes one stretch of two that touch, and none of an empty one.
func (p Plan) joined(a *Ask) Plan {
	switch {
	case p.Until <= p.From:
		p.From, p.Until = 0, 0
	case p.From <= p.Keep:
		p.Keep = bound(max(p.Keep, p.Until), a)
		p.From, p.Until = 0, 0
	}
	return p
}

func bound(d time.Duration, a *Ask) time.Duration { return max(min(d, a.Ceiling), a.Floor) }

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
