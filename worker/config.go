package worker

import (
	"crypto/tls"
	"fmt"
	"path/filepath"
	"runtime"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/awake"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/worker/logs"
	"github.com/tatami-faas/tatami/worker/meter"
)

// Config is a worker's configuration. Zero fields stand for their defaults.
type Config struct {
	// Node is the node's id. Required.
	Node functions.NodeID
	// Name is the node's name for people. Defaults to Node.
	Name string
	// Labels are what placement constraints are compared with.
	Labels map[string]string
	// DataDir holds the retained logs, under "logs". Required.
	DataDir string
	// RunDir holds what lives as long as sandboxes do, under "worker". Required.
	RunDir string
	// Capacity replaces what the machine is found to have, field by field.
	Capacity functions.Resources
	// Grant is what instances may take, field by field; a zero field: the capacity less the reserve. CPU may be up to 8 times the capacity.
	Grant functions.Resources
	// Reserve is kept from instances. CPU defaults to a tenth of the capacity; Memory to a tenth, at least 512 MiB, but at most half.
	Reserve functions.Resources
	// Waiting is what sandboxes made ahead take; it is kept from instances besides the reserve, but for what a grant says.
	Waiting functions.Resources
	// MaxInstances is how many instances the node holds. Default 500, at most 5000.
	MaxInstances int64
	// Grace is how long a process may take to end after SIGTERM. Default 10s.
	Grace time.Duration
	// DrainTimeout is how long running invocations may take to end when the worker stops. Default 30s.
	DrainTimeout time.Duration
	// KeepInstances leaves the instances running when the worker stops, for the next one to adopt.
	KeepInstances bool
	// StartConcurrency is how many sandboxes are made at once; further ones take their turn, functions one after the other. Default twice the processors.
	StartConcurrency int
	// PrepareTimeout is how long making an artifact ready may take. Default 10m.
	PrepareTimeout time.Duration
	// ArtifactGrace is how long an artifact that no function needs any more stays on the node. Default 10m.
	ArtifactGrace time.Duration
	// FreezeAfter is how long an instance stays idle before it is frozen, where its function does not say. Default 30s; negative: none ever is.
	FreezeAfter time.Duration
	// ReportEvery is the time between full reports. Default 2s.
	ReportEvery time.Duration
	// Listen is the address at which gateways of other processes reach the instances; empty: none do. Port 0 picks a free one.
	Listen string
	// Refused is told of whom that listener did not let in, with the address where that is known. Default is the log.
	Refused func(remote string, err error)
	// TLS makes the configuration of that listener, which lets gateways in only; refused is to be told why others are not. Required with Listen.
	TLS func(refused func(error)) *tls.Config
	// Near, if set, is given every endpoint table before it is published. True: the one gateway has it, and the bus need not carry it.
	Near func(*bus.EndpointTable) bool
	// Awake is told when bytes move between gateways elsewhere and instances. May be nil.
	Awake *awake.Keeper
	// Logs bounds the instances' logs; its directories are filled in.
	Logs logs.Config
}

const (
	defaultMaxInstances = 500
	maxMaxInstances     = 5000
	minReserveMemory    = 512 * functions.MiB
	// maxOvercommit is how many times the machine's processors may be granted.
	maxOvercommit = 8
)

func (c Config) withDefaults() Config {
	if c.Name == "" {
		c.Name = string(c.Node)
	}
	if c.MaxInstances == 0 {
		c.MaxInstances = defaultMaxInstances
	}
	if c.Grace == 0 {
		c.Grace = 10 * time.Second
	}
	if c.DrainTimeout == 0 {
		c.DrainTimeout = 30 * time.Second
	}
	if c.StartConcurrency == 0 {
		c.StartConcurrency = 2 * runtime.NumCPU()
	}
	if c.PrepareTimeout == 0 {
		c.PrepareTimeout = 10 * time.Minute
	}
	if c.ArtifactGrace == 0 {
		c.ArtifactGrace = 10 * time.Minute
	}
	if c.FreezeAfter == 0 {
		c.FreezeAfter = 30 * time.Second
	}
	if c.ReportEvery == 0 {
		c.ReportEvery = 2 * time.Second
	}
	c.Logs.Dir = filepath.Join(c.DataDir, "logs")
	c.Logs.PosDir = filepath.Join(c.RunDir, "worker")
	return c
}

func (c Config) validate() error {
	bad := func(field, format string, args ...any) error {
		return fault.New(fault.CodeInvalidRequest, field+": "+format, args...).WithField(field)
	}
	switch {
	case !c.Node.Valid():
		return bad("node", "%q is no node's id", c.Node)
	case c.DataDir == "":
		return bad("data-dir", "it is not given")
	case c.RunDir == "":
		return bad("run-dir", "it is not given")
	case c.MaxInstances < 1 || c.MaxInstances > maxMaxInstances:
		return bad("max-instances", "%d is not between 1 and %d", c.MaxInstances, maxMaxInstances)
	case c.Grace < 0 || c.DrainTimeout < 0 || c.PrepareTimeout < 0 || c.ArtifactGrace < 0 || c.ReportEvery < time.Millisecond:
		return bad("worker", "a time is negative or too short")
	case c.StartConcurrency < 1:
		return bad("start-concurrency", "%d is less than 1", c.StartConcurrency)
	case c.Listen != "" && c.TLS == nil:
		return bad("listen", "gateways and the worker could not show each other who they are")
	case c.Listen != "":
		return bus.CheckAddress("listen", c.Listen)
	}
	return nil
}

// Resources returns what the node has and what of it instances may take: capacity less the reserve. The sum of all instances' limits never
// exceeds allocatable, so a cgroup above them needs it plus what sandboxes cost besides.
func (c Config) Resources() (capacity, allocatable functions.Resources, err error) {
	c = c.withDefaults()
	capacity = c.Capacity
	if capacity.CPU == 0 || capacity.Memory == 0 {
		cpu, memory, err := meter.NewMachine("").Capacity()
		if err != nil {
			return capacity, allocatable, fmt.Errorf("reading the machine's capacity: %w", err)
		}
		if capacity.CPU == 0 {
			capacity.CPU = cpu
		}
		if capacity.Memory == 0 {
			capacity.Memory = memory
		}
	}
	if capacity.Instances == 0 {
		capacity.Instances = c.MaxInstances
	}
	reserve := c.Reserve
	if reserve.CPU == 0 {
		reserve.CPU = capacity.CPU / 10
	}
	if reserve.Memory == 0 {
		reserve.Memory = min(max(minReserveMemory, capacity.Memory/10), capacity.Memory/2)
	}
	allocatable, err = c.granted(capacity, capacity.Sub(reserve).Sub(c.Waiting))
	if err != nil {
		return capacity, allocatable, err
	}
	allocatable.Instances = min(allocatable.Instances, c.MaxInstances)
	if reserve.CPU < 0 || reserve.Memory < 0 || allocatable.CPU <= 0 || allocatable.Memory <= 0 || allocatable.Instances <= 0 {
		return capacity, allocatable, fault.New(fault.CodeInvalidRequest, "the reserve (%dm cpu, %d MiB) and what waits (%d MiB) leave nothing of the machine's %s",
			reserve.CPU, reserve.Memory/functions.MiB, c.Waiting.Memory/functions.MiB, capacity).
			WithHint("set a smaller --reserve-cpu, --reserve-memory, --sandbox-pool or --precreated")
	}
	return capacity, allocatable, nil
}

// granted puts what is granted in the place of the rest of the machine.
func (c Config) granted(capacity, rest functions.Resources) (functions.Resources, error) {
	// Processor time can be promised more than once: whoever does says that instances never want it all together. Memory cannot.
	if c.Grant.CPU < 0 || c.Grant.Memory < 0 || c.Grant.CPU > maxOvercommit*capacity.CPU || c.Grant.Memory > capacity.Memory {
		return rest, fault.New(fault.CodeInvalidRequest, "the grant (%dm cpu, %d MiB) is more than the machine's %s", c.Grant.CPU, c.Grant.Memory/functions.MiB, capacity).
			WithHint("set a smaller --grant-cpu or --grant-memory")
	}
	if c.Grant.CPU != 0 {
		rest.CPU = c.Grant.CPU
	}
	if c.Grant.Memory != 0 {
		rest.Memory = c.Grant.Memory
	}
	return rest, nil
}
