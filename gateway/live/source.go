package live

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
)

// Sources is where Live reads from. Overview must be set; any other that is nil counts as having nothing to say. They are called from one
// goroutine and should return within a fraction of a second.
type Sources struct {
	// Overview is the scheduler's picture; see OverviewFrom.
	Overview func(ctx context.Context) (bus.Overview, error)
	// Traffic tells what the gateways did.
	Traffic func(ctx context.Context) Gateways
	// Queues lists the queue's figures by function.
	Queues func() map[functions.Ref]Queue
	// Servers lists the servers of the cluster; nil, or none: the server stands alone. Leads says that this process's own leads.
	Servers func() []Server
	// Notices are sentences for the operator that hold as long as the process runs, such as the one about durability.
	Notices func() []string
}

// Gateways is what the gateways of a cluster did, or the only one.
type Gateways struct {
	// All is what they did together, by function; of counters it has no need.
	All []Traffic
	// Each is one for each server of the cluster.
	Each []Gateway
}

// Gateway is what one gateway did.
type Gateway struct {
	// Peer is which of the cluster's servers it is, Boot its run, Name its machine's. All are empty where there is one gateway.
	Peer, Boot, Name string
	// Own says that it is this process's own: its metrics are of that alone.
	Own bool
	// Told is false where it did not answer: what is missing of its counts comes with its next answer.
	Told      bool
	Functions []Traffic
}

// Traffic holds what a gateway counted for one function.
type Traffic struct {
	Namespace, Function string
	// Requests, Errors and ColdStarts count since the process began.
	Requests, Errors, ColdStarts uint64
	// InFlight and Waiting are of now.
	InFlight, Waiting int
	// RPS, P50 and P99 are over the last minute; the latter two are 0 when nothing ran.
	RPS      float64
	P50, P99 functions.Duration
	// Codes counts answers by HTTP status, or by the code of the fault where the platform answered.
	Codes map[string]uint64
}

// Queue holds what the queue holds for one function.
type Queue struct {
	Pending, Scheduled, Running, Dead int
	// Oldest is when the oldest waiting invocation was accepted; zero when none waits.
	Oldest time.Time
}

// OverviewFrom asks the scheduler over the bus.
func OverviewFrom(nc *nats.Conn) func(ctx context.Context) (bus.Overview, error) {
	return func(ctx context.Context) (bus.Overview, error) {
		var o bus.Overview
		msg, err := nc.RequestWithContext(ctx, bus.SubjectOverview, nil)
		if err != nil {
			return o, fmt.Errorf("ask the scheduler: %w", err)
		}
		if err := json.Unmarshal(msg.Data, &o); err != nil {
			return o, fmt.Errorf("read the scheduler's answer: %w", err)
		}
		if o.Schema > bus.Schema {
			return o, fmt.Errorf("the scheduler's answer has schema %d, this gateway knows %d", o.Schema, bus.Schema)
		}
		return o, nil
	}
}
