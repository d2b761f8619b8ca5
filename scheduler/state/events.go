package state

import (
	"time"

	"github.com/tatami-faas/tatami/functions"
)

// kept is how many events a function keeps.
const kept = 128

// Event is something that was decided or that happened, for people.
type Event struct {
	At       time.Time
	Instance functions.InstanceID
	Text     string
}

// Events keeps the last events of a function. The zero value is empty; its size is bounded.
type Events struct {
	ring []Event
	next int
}

// Add keeps an event; the oldest goes when there are too many. One that repeats the last takes its place.
func (e *Events) Add(at time.Time, instance functions.InstanceID, text string) {
	if n := len(e.ring); n > 0 {
		last := &e.ring[(e.next+n-1)%n]
		if last.Instance == instance && last.Text == text {
			last.At = at
			return
		}
	}
	ev := Event{At: at, Instance: instance, Text: text}
	if len(e.ring) < kept {
		e.ring = append(e.ring, ev)
		e.next = 0
		return
	}
	e.ring[e.next] = ev
	e.next = (e.next + 1) % kept
}

// Latest returns the events, the latest first; those of one instance only unless instance is empty.
func (e *Events) Latest(instance functions.InstanceID) []Event {
	n := len(e.ring)
	out := make([]Event, 0, n)
	for i := range n {
		ev := e.ring[((e.next-1-i)%n+n)%n]
		if instance == "" || ev.Instance == instance {
			out = append(out, ev)
		}
	}
	return out
}
