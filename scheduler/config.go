package scheduler

import (
	"cmp"
	"time"

	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/scheduler/fleet"
)

// Config tunes the scheduler. A zero field stands for its default.
type Config struct {
	// Epoch is that of this scheduler's leadership: workers refuse the commands of lower ones. Default bus.Epoch, which is that of a single scheduler.
	Epoch uint64
	// Settle is how long after the start workers get to say what runs, before anything is decided. Default 300ms.
	Settle time.Duration
	// PlaceTimeout is how long a deploy may wait for room before it fails. Default 60s.
	PlaceTimeout time.Duration
	// TrafficDelay is how long a replaced revision's instances stay after the traffic moved. Default 250ms.
	TrafficDelay time.Duration
	// Compact is CompactOff or CompactIdle; CompactAfter is how long no function must have lacked room before a node is emptied, and between two
	// nodes. Default CompactOff, 1m.
	Compact      string
	CompactAfter time.Duration
	// SaveEvery is the time between two stores of what was learnt of idle times; they are stored at the end, too. Default 5m.
	SaveEvery time.Duration
	// SaveWithin bounds that at the end, while nobody else leads. Default 5s.
	SaveWithin time.Duration
	// Tick and IdleTick are the times between looks at what time changes, with something under way and without. Default 100ms, 1s.
	Tick     time.Duration
	IdleTick time.Duration
	// Pool is where workers come from. Default Static.
	Pool Pool
	// Fleet says how fast a pool grows and shrinks.
	Fleet fleet.Policy
	// Near, if set, is given every command before it is published. True: the worker that it is for has it, and the bus need not carry it.
	Near func(*bus.Command) bool
}

// What is done by itself to use fewer nodes.
const (
	// CompactOff: nothing.
	CompactOff = "off"
	// CompactIdle: a node whose instances do nothing and fit on others that run something already is emptied.
	CompactIdle = "idle"
)

func (c Config) withDefaults() Config {
	c.Epoch = cmp.Or(c.Epoch, bus.Epoch)
	c.Settle = cmp.Or(c.Settle, 300*time.Millisecond)
	c.PlaceTimeout = cmp.Or(c.PlaceTimeout, time.Minute)
	c.TrafficDelay = cmp.Or(c.TrafficDelay, 250*time.Millisecond)
	c.Compact = cmp.Or(c.Compact, CompactOff)
	c.CompactAfter = cmp.Or(c.CompactAfter, time.Minute)
	c.SaveEvery = cmp.Or(c.SaveEvery, 5*time.Minute)
	c.SaveWithin = cmp.Or(c.SaveWithin, 5*time.Second)
	c.Tick = cmp.Or(c.Tick, 100*time.Millisecond)
	c.IdleTick = cmp.Or(c.IdleTick, time.Second)
	if c.Pool == nil {
		c.Pool = Static{}
	}
	return c
}

func (c Config) validate() error {
	for field, d := range map[string]time.Duration{
		"settle": c.Settle, "placeTimeout": c.PlaceTimeout, "trafficDelay": c.TrafficDelay, "tick": c.Tick, "idleTick": c.IdleTick, "compact-after": c.CompactAfter,
		"saveEvery": c.SaveEvery, "saveWithin": c.SaveWithin, "up-after": c.Fleet.UpAfter, "down-after": c.Fleet.DownAfter,
	} {
		if d < 0 {
			return fault.New(fault.CodeInvalidRequest, "scheduler: %s: %s is negative", field, d).WithField(field)
		}
	}
	if c.Compact != CompactOff && c.Compact != CompactIdle {
		return fault.New(fault.CodeInvalidRequest, "compact: %.40q is neither %s nor %s", c.Compact, CompactOff, CompactIdle).WithField("compact")
	}
	return nil
}
