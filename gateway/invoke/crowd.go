package invoke

import "time"

const (
	// crowdWindow and crowdTurns: waiters are counted again after at least so long, and after every slot was granted so often. A burst becomes
	// shorter in that time, whatever the function's calls take; a fixed number of callers, each of whom calls again when it was answered, stays
	// as it is; what becomes more and more is more than the slots can serve.
	crowdWindow = 150 * time.Millisecond
	crowdTurns  = 2
	// crowdShare of the slots granted, and crowdRounds for each slot: waiters grow when they become more by both than ever since nobody
	// waited. They are a crowd when they grow in crowdWindows windows one after the other: a second burst behind a first grows in one.
	crowdShare   = 4
	crowdRounds  = 2
	crowdWindows = 2
	// crowdWait is how long a request may wait for its slot, at the pace of the window, without being of a crowd.
	crowdWait = 250 * time.Millisecond
	// sheddingWindow is how long refusals are counted before waiters may be many again; that is when less than one arrival in sheddingShare
	// was refused.
	sheddingWindow = time.Second
	sheddingShare  = 16
)

// crowd tells a burst, which may wait, from an overload, of which only a few may: the others would wait for seconds in a list that never
// becomes shorter, and none would be served in the time that a call takes. It is for functions that cannot get more slots.
type crowd struct {
	// since is when the window began; zero while nobody waits.
	since time.Time
	// grants counts slots granted to waiters in the window, last is the most that waited when one began, 0 in the first window; grown counts
	// the windows up to this one, one after the other, that passed it.
	grants, last, grown int
	shedding            bool
	// arrivals and refusals are those of the window while shedding.
	arrivals, refusals int
}

// calm notes that a request found a free slot.
func (c *crowd) calm(now time.Time) {
	if !c.shedding {
		c.since = time.Time{}
		return
	}
	c.roll(now)
	c.arrivals++
}

// roll ends the window of refusals when it has passed, and the shedding when they were rare.
func (c *crowd) roll(now time.Time) {
	passed := now.Sub(c.since)
	switch {
	case passed < sheddingWindow:
	case c.refusals*sheddingShare < c.arrivals || passed >= 2*sheddingWindow:
		*c = crowd{}
	default:
		c.since, c.arrivals, c.refusals = now, 0, 0
	}
}

// bound returns how many may wait when a request arrives that finds so many waiting for so many slots; most is the bound of a burst.
func (c *crowd) bound(now time.Time, waiting, slots, most int) int {
	few := min(max(1, slots/2), most)
	if c.shedding {
		c.roll(now)
	}
	passed := now.Sub(c.since)
	switch {
	case c.shedding:
		c.arrivals++
		if waiting >= few {
			c.refusals++
		}
		return few
	case waiting == 0:
		c.since = time.Time{}
	case c.since.IsZero():
		*c = crowd{since: now}
	case passed >= crowdWindow && c.grants >= crowdTurns*slots:
		grown := 0
		if c.last > 0 && waiting-c.last >= max(c.grants/crowdShare, crowdRounds*slots) {
			grown = c.grown + 1
		}
		wait := passed * time.Duration(waiting) / time.Duration(c.grants)
		if c.last > 0 && waiting >= most || grown >= crowdWindows && wait >= crowdWait {
			*c = crowd{since: now, shedding: true, arrivals: 1, refusals: 1}
			return few
		}
		*c = crowd{since: now, last: max(c.last, waiting), grown: grown}
	}
	return most
}

// room returns how many may wait for a slot when a request arrives now. Of those who wait beyond that, the longest waiting are sent away: they
// would keep those behind them from an answer in time. p.mu is held.
func (p *pool) room(class Class, most int, now time.Time) int {
	if class != Sync {
		return most
	}
	slots := p.liveSlots()
	if slots == 0 || slots < p.live.Config.Scale.Max*p.live.Config.Concurrency {
		// More slots may be on their way.
		p.crowd = crowd{}
		return most
	}
	n := p.crowd.bound(now, p.sync.n, slots, most)
	for p.crowd.shedding && p.sync.n > n {
		p.sync.popFront().ready <- grant{err: p.fn.overloaded(slots)}
	}
	return n
}
