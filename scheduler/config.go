package scheduler

import (
	"cmp"
	"time"

	"github.com/tatami-faas/tatami/internal/fault"
)

// Config tunes the scheduler. A zero field stands for its default.
type Config struct {
	// Settle is how long after the start workers get to say what runs, before anything is decided. Default 300ms.
	Settle time.Duration
	// PlaceTimeout is how long a deploy may wait for room before it fails. Default 60s.
	PlaceTimeout time.Duration
	// TrafficDelay is how long a replaced revision's instances stay after the traffic moved. Default 250ms.
	TrafficDelay time.Duration
	// Tick and IdleTick are the times between looks at what time changes, with something under way and without. Default 100ms, 1s.
	Tick     time.Duration
	IdleTick time.Duration
}

func (c Config) withDefaults() Config {
	c.Settle = cmp.Or(c.Settle, 300*time.Millisecond)
	c.PlaceTimeout = cmp.Or(c.PlaceTimeout, time.Minute)
	c.TrafficDelay = cmp.Or(c.TrafficDelay, 250*time.Millisecond)
	c.Tick = cmp.Or(c.Tick, 100*time.Millisecond)
	c.IdleTick = cmp.Or(c.IdleTick, time.Second)
	return c
}

func (c Config) validate() error {
	for field, d := range map[string]time.Duration{
		"settle": c.Settle, "placeTimeout": c.PlaceTimeout, "trafficDelay": c.TrafficDelay, "tick": c.Tick, "idleTick": c.IdleTick,
	} {
		if d < 0 {
			return fault.New(fault.CodeInvalidRequest, "scheduler: %s: %s is negative", field, d).WithField(field)
		}
	}
	return nil
}
