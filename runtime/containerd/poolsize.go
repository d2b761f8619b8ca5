//go:build linux

package containerd

import (
	"cmp"
	"time"

	"github.com/tatami-faas/tatami/functions"
)

const (
	// PoolAuto stands for a pool that sizes itself.
	PoolAuto = -1

	// MaxPool is the most sandboxes that a pool may hold.
	MaxPool = 1000
	// SpareCost is what a waiting sandbox takes of the node in bytes, kernel memory included, rounded up.
	SpareCost = 2 * functions.MiB
	// spareCharge is what of it the parent cgroup is charged while it is made.
	spareCharge = 2 * functions.MiB
	// autoFloor is how many sandboxes wait in a pool that sizes itself where nothing has been going on: they cover a burst of a hundred.
	autoFloor = 104
	// floorShare and ceilingShare of the node's memory bound such a pool: one in so many bytes.
	floorShare   = 100
	ceilingShare = 25
	// mappedFloor and mappedCeiling are what part of the bounds those of the pool for images that name root are, one in so many.
	mappedFloor   = 8
	mappedCeiling = 4
	// linkedFloor and linkedCeiling are that of the part of a pool that has links to the internet, linkedRoom what part of all links it has at most.
	linkedFloor   = 8
	linkedCeiling = 2
	linkedRoom    = 8

	// burstTime is the time within which starts cannot be covered by refilling, and busyMemory how long a burst is remembered.
	burstTime  = 2 * time.Second
	busyMemory = 10 * time.Minute
)

// poolBounds are how many sandboxes wait at least and at most.
type poolBounds struct{ floor, ceiling int }

// boundsOf returns the bounds of a pool of that size on a node with so much memory; 0: unknown, as of 4 GiB.
func boundsOf(size int, memory int64) poolBounds {
	if size != PoolAuto {
		return poolBounds{size, size}
	}
	fit := int(cmp.Or(memory, 4*functions.GiB) / SpareCost)
	floor := min(autoFloor, max(1, fit/floorShare))
	return poolBounds{floor, min(MaxPool, max(floor, fit/ceilingShare))}
}

// mapped are the bounds of the pool of sandboxes with a user namespace. It is filled only where an image needs it.
func (b poolBounds) mapped() poolBounds {
	part := func(n, of int) int { return (n + of - 1) / of }
	if b.floor == b.ceiling {
		return poolBounds{part(b.floor, mappedFloor), part(b.ceiling, mappedFloor)}
	}
	return poolBounds{part(b.floor, mappedFloor), part(b.ceiling, mappedCeiling)}
}

// linked are the bounds of the part of a pool whose sandboxes have links, where the node has room for so many links.
func (b poolBounds) linked(room int) poolBounds {
	most := min(b.ceiling/linkedCeiling, room/linkedRoom)
	return poolBounds{min(most, (b.floor+linkedFloor-1)/linkedFloor), most}
}

// mostWaiting is how many sandboxes wait at most in the pools together.
func mostWaiting(size int, memory int64) int64 {
	b := boundsOf(size, memory)
	return int64(b.ceiling + b.mapped().ceiling)
}

// PrecreatedMost is the most that waiting containers take of a node with so much memory, where their number is that.
func PrecreatedMost(given int, memory int64) functions.Resources {
	return functions.Resources{Memory: int64(precreatedBound(given, memory)) * PrecreatedCost}
}

// PoolCost is the most that waiting sandboxes take of a node with so much memory, where the pool has that size.
func PoolCost(size int, memory int64) functions.Resources {
	return functions.Resources{Memory: mostWaiting(size, memory) * SpareCost}
}

// demand remembers how many starts there were: the most within burstTime during busyMemory, one number for each burstTime.
type demand struct {
	begun time.Time
	slots [busyMemory / burstTime]slot
}

type slot struct {
	at     int64
	starts int
}

// started notes a start.
func (d *demand) started(now time.Time) {
	at := d.index(now)
	s := &d.slots[at%int64(len(d.slots))]
	if s.at != at {
		*s = slot{at: at}
	}
	s.starts++
}

// burst is the most starts there were within burstTime, wherever it began.
func (d *demand) burst(now time.Time) int {
	at := d.index(now)
	most, before := 0, 0
	for i := at - int64(len(d.slots)) + 1; i <= at; i++ {
		here := 0
		if i >= 0 {
			if s := d.slots[i%int64(len(d.slots))]; s.at == i {
				here = s.starts
			}
		}
		most, before = max(most, before+here), here
	}
	return most
}

func (d *demand) index(now time.Time) int64 {
	if d.begun.IsZero() {
		d.begun = now
	}
	return int64(now.Sub(d.begun) / burstTime)
}

// size is how many sandboxes are to wait: enough for the largest burst of late and a quarter more.
func (b poolBounds) size(burst int) int {
	return min(b.ceiling, max(b.floor, burst+burst/4))
}
