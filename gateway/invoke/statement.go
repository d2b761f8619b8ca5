package invoke

import (
	"context"
	"time"

	"github.com/tatami-faas/tatami/internal/bus"
)

const (
	// waitingInterval is how often the demand is repeated while anything waits, trafficInterval while there is traffic.
	waitingInterval = 250 * time.Millisecond
	trafficInterval = time.Second
	// partSize is how many functions a message names at most. A scheduler decides for all that a message names before it takes the next one:
	// what is urgent does not wait for thousands that are not.
	partSize = 32
)

// pass is a statement of many functions under way, part by part.
type pass struct {
	left  []*function
	begun time.Time
	// whole says that it names every function in use, part numbers the parts that were published.
	whole bool
	part  int
	// pause lies between two parts, so that the whole takes half an interval.
	pause time.Duration
	// waits says that something waited that it named, or that came up meanwhile.
	waits bool
	// wholeAt is when the last whole one began.
	wholeAt time.Time
}

// run publishes until ctx ends: at once what is urgent, and everything again and again.
func (d *demand) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	defer timer.Stop()
	// due is when to go on stating; zero is never.
	var due time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.wake:
			now, within := time.Now(), trafficInterval
			if d.hurry(now) {
				within, d.pass.waits = waitingInterval, true
			}
			if soonest := now.Add(within); due.IsZero() || soonest.Before(due) {
				due = soonest
				timer.Reset(within)
			}
			continue
		case <-timer.C:
		}
		now := time.Now()
		if due = d.goOn(now); !due.IsZero() {
			timer.Reset(due.Sub(now))
		}
	}
}

// hurry states the functions with a need that no message has named; false where there are none.
func (d *demand) hurry(now time.Time) bool {
	d.mu.Lock()
	urgent := d.urgent
	d.urgent = nil
	d.mu.Unlock()
	for left := urgent; len(left) > 0; {
		part := left[:min(len(left), partSize)]
		left = left[len(part):]
		msg := bus.Demand{Partial: true, Functions: make([]bus.FunctionDemand, 0, len(part))}
		for _, f := range part {
			if fd, more := f.pool.urgentDemand(now); more {
				msg.Functions = append(msg.Functions, fd)
			}
		}
		if len(msg.Functions) > 0 {
			d.publish(&msg)
		}
	}
	return len(urgent) > 0
}

// goOn publishes the next part, and returns when the one after that is due; zero is never.
func (d *demand) goOn(now time.Time) time.Time {
	p := &d.pass
	if len(p.left) == 0 && !d.begin(now) {
		return time.Time{}
	}
	part := p.left[:min(len(p.left), partSize)]
	p.left = p.left[len(part):]
	p.part++
	msg := bus.Demand{Functions: make([]bus.FunctionDemand, 0, len(part))}
	// What fits into one message is whole by itself.
	if !p.whole || p.part > 1 || len(p.left) > 0 {
		msg.Partial = true
	}
	if p.whole && msg.Partial {
		msg.Part, msg.Last = p.part, len(p.left) == 0
	}
	for _, f := range part {
		var fd bus.FunctionDemand
		idle := false
		if p.whole {
			fd, idle = f.pool.demand(now)
		} else {
			fd = f.pool.demandAgain(now)
		}
		msg.Functions = append(msg.Functions, fd)
		p.waits = p.waits || fd.Waiting+fd.Backlog > 0
		if idle {
			d.retire(f)
		}
	}
	if len(msg.Functions) > 0 {
		d.publish(&msg)
	}
	switch {
	case len(p.left) > 0:
		return now.Add(p.pause)
	case p.waits:
		return later(p.begun.Add(waitingInterval), now)
	default:
		return later(p.wholeAt.Add(trafficInterval), now)
	}
}

// later is the time, or soon where that is over.
func later(at, now time.Time) time.Time {
	if soon := now.Add(waitingInterval / 8); at.Before(soon) {
		return soon
	}
	return at
}

// begin gathers what is to be stated: everything if it is time or little, else what waits. False where nothing is in use.
func (d *demand) begin(now time.Time) bool {
	d.mu.Lock()
	all := make([]*function, 0, len(d.active))
	for f := range d.active {
		all = append(all, f)
	}
	d.mu.Unlock()
	if len(all) == 0 {
		return false
	}
	last := d.pass.wholeAt
	whole := len(all) <= partSize || now.Sub(last) >= trafficInterval-waitingInterval/8
	within := trafficInterval / 2
	if whole {
		last = now
	} else {
		within = waitingInterval / 2
		pressed := all[:0]
		for _, f := range all {
			if f.pool.pressed() {
				pressed = append(pressed, f)
			}
		}
		all = pressed
	}
	parts := max((len(all)+partSize-1)/partSize, 1)
	d.pass = pass{left: all, begun: now, whole: whole, pause: within / time.Duration(parts), wholeAt: last}
	return true
}
