package invoke

import (
	"context"
	"net"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/awake"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// Config bounds what a request may take.
type Config struct {
	// MaxBody is the largest body of a request that is passed on as it comes, in bytes. Default 100 MiB.
	MaxBody int64
	// MaxHeader is the largest header of a request and of a function's answer, in bytes. Default 64 KiB.
	MaxHeader int
	// MaxWaiting is how many requests may wait for a slot of one function. Default 1000. Of a function that has all the slots it may have and
	// is asked for more than they serve, half as many may wait as it has slots, until the overload is over.
	MaxWaiting int
	// Tables, if set, is given every endpoint table of a worker before its endpoints are used.
	Tables func(*bus.EndpointTable)
	// Near, if set, is given every statement of the demand before it is published. True: the one scheduler has it, and the bus need not carry it.
	Near func(*bus.Demand) bool
	// Awake is told when bytes move between clients and instances, and when an instance will have to start. May be nil.
	Awake *awake.Keeper
}

func (c Config) withDefaults() Config {
	if c.MaxBody == 0 {
		c.MaxBody = 100 * functions.MiB
	}
	if c.MaxHeader == 0 {
		c.MaxHeader = int(64 * functions.KiB)
	}
	if c.MaxWaiting == 0 {
		c.MaxWaiting = 1000
	}
	return c
}

func (c Config) validate() error {
	bad := func(field string, v int64, least int64) error {
		return fault.New(fault.CodeInvalidRequest, "%s: %d is less than %d", field, v, least).WithField(field)
	}
	switch {
	case c.MaxBody < 1:
		return bad("max-body", c.MaxBody, 1)
	case c.MaxHeader < 1<<10:
		return bad("max-header", int64(c.MaxHeader), 1<<10)
	case c.MaxWaiting < 1:
		return bad("max-waiting", int64(c.MaxWaiting), 1)
	}
	return nil
}

// Workers reaches the instances on their nodes. Its methods are called from many goroutines at once.
type Workers interface {
	// Admit takes a slot of the instance. An error means that nothing was taken: the instance is full, drains or is gone.
	Admit(node functions.NodeID, inst functions.InstanceID) error
	// Release gives the slot back.
	Release(node functions.NodeID, inst functions.InstanceID)
	// Dial connects to the function's port in the instance.
	Dial(ctx context.Context, node functions.NodeID, inst functions.InstanceID) (net.Conn, error)
}

// Class says who asks for a slot.
type Class uint8

// The classes of a lease. Sync goes first; Async has a share of the slots that it always gets.
const (
	Sync Class = iota
	Async
)
