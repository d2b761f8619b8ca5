package invoke

import (
	"sync"
	"time"
)

// deadlines holds what a function's requests do to their deadlines. Nearly everything ends long before, and a timer of its own would be set and
// stopped for nothing; so the function rings for the first of them, by the alarms of all.
type deadlines struct {
	alarms *alarms

	mu    sync.Mutex
	first *expiry
	// next is when the alarm rings; zero while it is not set.
	next time.Time
}

// expiry is one deadline. It is part of what expires then.
type expiry struct {
	at time.Time
	of expiring
	// by is what holds it, nil when nothing does; earlier and later are its neighbours there.
	by             *deadlines
	earlier, later *expiry
}

// expiring is told when its deadline is over.
type expiring interface{ expire() }

// add tells of its deadline until e is removed.
func (d *deadlines) add(e *expiry, of expiring) {
	d.mu.Lock()
	defer d.mu.Unlock()
	e.by, e.of = d, of
	if e.later = d.first; e.later != nil {
		e.later.earlier = e
	}
	d.first = e
	if d.next.IsZero() || e.at.Before(d.next) {
		d.set(e.at)
	}
}

// set has the alarm ring; d.mu is held.
func (d *deadlines) set(at time.Time) {
	d.next = at
	d.alarms.set(at, d)
}

// remove lets go of a deadline. It is false for one that is not held, which stays so: it may just be over.
func (d *deadlines) remove(e *expiry) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.unlink(e)
}

// unlink is remove; d.mu is held.
func (d *deadlines) unlink(e *expiry) bool {
	if e.by == nil {
		return false
	}
	if e.later != nil {
		e.later.earlier = e.earlier
	}
	if e.earlier != nil {
		e.earlier.later = e.later
	} else {
		d.first = e.later
	}
	e.by, e.earlier, e.later = nil, nil, nil
	return true
}

// ring tells of the deadlines that are over, and sets the alarm for the others. An alarm for another time than the one set last is an old one.
func (d *deadlines) ring(at time.Time) {
	var over []*expiry
	d.mu.Lock()
	if !at.Equal(d.next) {
		d.mu.Unlock()
		return
	}
	now := time.Now()
	d.next = time.Time{}
	for e := d.first; e != nil; {
		later := e.later
		switch {
		case !e.at.After(now):
			d.unlink(e)
			over = append(over, e)
		case d.next.IsZero() || e.at.Before(d.next):
			d.next = e.at
		}
		e = later
	}
	if !d.next.IsZero() {
		d.set(d.next)
	}
	d.mu.Unlock()
	for _, e := range over {
		e.of.expire()
	}
}
