package invoke

import (
	"sync"
	"time"
)

// deadlines holds a function's exchanges to their deadlines with one timer for all of them: nearly every exchange ends long before, and a timer of its
// own would be set and stopped for nothing. The zero one is ready.
type deadlines struct {
	mu    sync.Mutex
	first *exchange
	timer *time.Timer
	// next is when the timer rings; zero while it is not set.
	next time.Time
}

// add holds the exchange to its deadline until it is removed.
func (d *deadlines) add(x *exchange) {
	d.mu.Lock()
	defer d.mu.Unlock()
	x.limits = d
	if x.later = d.first; x.later != nil {
		x.later.earlier = x
	}
	d.first = x
	if d.next.IsZero() || x.deadline.Before(d.next) {
		d.set(x.deadline)
	}
}

// set has the timer ring; d.mu is held.
func (d *deadlines) set(at time.Time) {
	d.next = at
	if d.timer == nil {
		d.timer = time.AfterFunc(time.Until(at), d.ring)
		return
	}
	d.timer.Reset(time.Until(at))
}

// remove lets go of an exchange. It is false for one that is not held, which stays so: its deadline may just be ending it.
func (d *deadlines) remove(x *exchange) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.unlink(x)
}

// unlink is remove; d.mu is held.
func (d *deadlines) unlink(x *exchange) bool {
	if x.limits == nil {
		return false
	}
	if x.later != nil {
		x.later.earlier = x.earlier
	}
	if x.earlier != nil {
		x.earlier.later = x.later
	} else {
		d.first = x.later
	}
	x.limits, x.earlier, x.later = nil, nil, nil
	return true
}

// ring ends the exchanges whose time is over, and sets the timer for the others.
func (d *deadlines) ring() {
	var over []*exchange
	d.mu.Lock()
	now := time.Now()
	d.next = time.Time{}
	for x := d.first; x != nil; {
		later := x.later
		switch {
		case !x.deadline.After(now):
			d.unlink(x)
			over = append(over, x)
		case d.next.IsZero() || x.deadline.Before(d.next):
			d.next = x.deadline
		}
		x = later
	}
	if !d.next.IsZero() {
		d.set(d.next)
	}
	d.mu.Unlock()
	for _, x := range over {
		x.expire()
	}
}
