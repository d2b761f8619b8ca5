package obs

import (
	"context"
	"time"
)

// Source is where the metrics come from: it is read once a scrape.
type Source interface {
	// Sample returns the figures of now. It may be called at the same time from several goroutines.
	Sample(ctx context.Context) (Sample, error)
}

// Sample is everything the metrics say at one time.
type Sample struct {
	// SchedulerUp is false when the scheduler did not answer; Nodes and the counts of instances are then the last known.
	SchedulerUp bool
	Functions   []FunctionSample
	Nodes       []NodeSample
	// Servers are those of the cluster; none where the server stands alone.
	Servers []ServerSample
	// StreamClients counts the open streams of the dashboard.
	StreamClients int
}

// FunctionSample holds the figures of one function.
type FunctionSample struct {
	Namespace, Function string
	// Codes counts answers by HTTP status, three digits, or by the code of the fault where the platform answered.
	Codes              map[string]uint64
	Errors, ColdStarts uint64
	InFlight, Waiting  int
	// P50 and P99 are of the last minute; negative when nothing was measured.
	P50, P99 time.Duration
	// Instances counts by state.
	Instances     map[string]int
	Desired       int
	StartFailures uint64
	// The queue's figures.
	Pending, Scheduled, Running, Dead int
	// OldestAge is how long the oldest waiting invocation waits; 0 when none does.
	OldestAge time.Duration
}

// ServerSample holds the figures of one server of a cluster.
type ServerSample struct {
	// Peer is the address at which the others reach it.
	Peer, Name string
	Up, Leads  bool
}

// NodeSample holds the figures of one node.
type NodeSample struct {
	ID, Name string
	// Up is false when the node has not reported for too long.
	Up bool
	// CPU is in millicores, memory in bytes.
	CPU, Memory Capacities
}

// Capacities are the figures of one resource of a node.
type Capacities struct{ Capacity, Allocatable, Reserved, Used int64 }
