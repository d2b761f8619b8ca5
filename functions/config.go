package functions

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tatami-faas/tatami/internal/fault"
)

// Bytes.
const (
	KiB int64 = 1 << 10
	MiB int64 = 1 << 20
	GiB int64 = 1 << 30
)

// Config is how a revision's artifact is run. A zero field stands for its default; WithDefaults fills them in.
type Config struct {
	// Command replaces the image's entrypoint and command; empty keeps them.
	Command []string `json:"command,omitempty"`
	// Port is where the function listens for HTTP, 1 to 65535. Default 8080.
	Port int `json:"port"`
	// Protocol is what the function speaks on its port: ProtocolH2C, or ProtocolHTTP1, for which the empty one stands.
	Protocol string `json:"protocol,omitempty"`
	// Env is added to the image's environment.
	Env map[string]string `json:"env,omitempty"`
	// Egress is what an instance may connect to: EgressInternet, or EgressNone, for which the empty one stands.
	Egress string `json:"egress,omitempty"`
	// Sandbox is whose kernel answers an instance's system calls: SandboxGVisor, or SandboxContainer, for which the empty one stands.
	Sandbox string `json:"sandbox,omitempty"`
	Limits  Limits `json:"limits"`
	// Timeout is how long an attempt may take until its response ended, waiting for an instance included. Default 60s, at most 1h.
	Timeout Duration `json:"timeout"`
	// IdleTimeout ends a stream on which no byte moved for so long; it applies to upgraded connections, and to event streams and gRPC
	// from the head of their answer on, which Timeout does not. Default 5m.
	IdleTimeout Duration `json:"idleTimeout"`
	// Concurrency is how many invocations one instance runs at once, 1 to 1000. Default 10.
	Concurrency int       `json:"concurrency"`
	Scale       Scale     `json:"scale"`
	Readiness   Readiness `json:"readiness"`
	Queue       Queue     `json:"queue"`
	// RetrySafe says that an invocation may be run again when it is not known what came of it: the function makes its effect conditional on the
	// invocation's id, or has none.
	RetrySafe bool `json:"retrySafe,omitempty"`
	// ReadOnlyRoot makes the root filesystem read-only; /tmp stays writable.
	ReadOnlyRoot bool              `json:"readOnlyRoot,omitempty"`
	Labels       map[string]string `json:"labels,omitempty"`
	Placement    Placement         `json:"placement,omitzero"`
}

// What a function may speak on its port.
const (
	// ProtocolHTTP1 is HTTP/1.1.
	ProtocolHTTP1 = "http1"
	// ProtocolH2C is HTTP/2 in clear text with prior knowledge, as gRPC speaks it.
	ProtocolH2C = "h2c"
)

// What an instance may connect to.
const (
	// EgressNone is nothing but itself.
	EgressNone = "none"
	// EgressInternet is addresses of the internet over IPv4: no other instance, no address of the node, no private network.
	EgressInternet = "internet"
)

// Whose kernel answers an instance's system calls.
const (
	// SandboxContainer is the node's, as far as seccomp lets calls through.
	SandboxContainer = "container"
	// SandboxGVisor is gVisor's: calls reach the node's kernel only as the few that gVisor makes itself. It takes runsc on the node, starts more
	// slowly, and is charged to the instance.
	SandboxGVisor = "gvisor"
)

// GVisor reports whether instances run in gVisor's sandboxes.
func (c Config) GVisor() bool { return c.Sandbox == SandboxGVisor }

// Internet reports whether instances have a way to the internet.
func (c Config) Internet() bool { return c.Egress == EgressInternet }

// H2C reports whether the function speaks HTTP/2.
func (c Config) H2C() bool { return c.Protocol == ProtocolH2C }

// Limits are the resources of one instance, held by its cgroup.
type Limits struct {
	// CPU is in millicores. Default 250, at least 10.
	CPU int64 `json:"cpuMillis"`
	// Memory is in bytes. Default 128 MiB, at least 16 MiB.
	Memory int64 `json:"memoryBytes"`
	// Ephemeral is the size of the writable layer and /tmp together, in bytes, held in memory beside Memory. Default 64 MiB, at least 1 MiB.
	Ephemeral int64 `json:"ephemeralBytes"`
	// PIDs bounds processes and threads together. Default 256, 8 to 32768.
	PIDs int64 `json:"pids"`
}

// Resources returns what one instance with these limits takes from its node and from its namespace's quota.
func (l Limits) Resources() Resources {
	return Resources{CPU: l.CPU, Memory: l.Memory + l.Ephemeral, Instances: 1}
}

// Scale bounds the number of instances and says how it follows the load.
type Scale struct {
	// Min is kept running without demand. Default 0.
	Min int `json:"min"`
	// Max is never exceeded. Default 100, at most 10000.
	Max int `json:"max"`
	// KeepAlive is how long an instance stays idle at least before it is stopped, and at most where KeepAliveMax is 0. Default 1m, or KeepAliveMax where
	// that is shorter; at least 1s.
	KeepAlive Duration `json:"keepAlive"`
	// KeepAliveMax lets the scheduler choose, by the function's own idle times and the price of idle memory: an instance stays for KeepAlive
	// at least and for this long at most, and one is started ahead of a need that comes regularly. Default 1h where KeepAlive is not set either; else 0,
	// which is always KeepAlive. At most 24h.
	KeepAliveMax Duration `json:"keepAliveMax,omitempty"`
	// FreezeAfter is how long an instance stays idle before it is frozen: nothing of it runs then until the next request, which costs that one less
	// than a millisecond. Default, stored as 0: the node's, which is 30s. 100ms to 24h.
	FreezeAfter Duration `json:"freezeAfter,omitempty"`
	// Awake keeps idle instances from being frozen: for a function that works between invocations.
	Awake bool `json:"awake,omitempty"`
	// Initial is how many there are at least while the function is in use: the number it starts from zero with. At most Max.
	Initial int `json:"initial,omitempty"`
	// Reserved is how many are kept ready beyond what the load needs, without demand too. At most Max.
	Reserved int `json:"reserved,omitempty"`
	// Burst is how many invocations more than now find a free slot at once, while the function is in use. At most 10000.
	Burst int `json:"burst,omitempty"`
	// Utilization is the share of its concurrency, in percent, that steady load puts on an instance. Default 70, which is stored as 0.
	Utilization int `json:"utilization,omitempty"`
	// Window is the time over which the steady load is averaged; a tenth of it notices a surge. Default, stored as 0: a minute, or the
	// keep-alive where that is shorter, 6s at least. At most 1h.
	Window Duration `json:"window,omitempty"`
	// DownDelay is how long fewer instances must have been enough before there are fewer. Default, stored as 0: the window, and none
	// before there are none. At most 1h.
	DownDelay Duration `json:"downDelay,omitempty"`
}

// Rest returns how many instances stay without demand.
func (s Scale) Rest() int { return max(s.Min, s.Reserved) }

// Readiness is how the worker tells that an instance takes requests.
type Readiness struct {
	// Path is fetched with GET until it answers 2xx or 3xx; empty: a TCP connection to the port is enough.
	Path string `json:"path,omitempty"`
	// Activation says that the function takes a socket that listens from whoever starts it, by systemd's protocol (LISTEN_FDS), and listens on
	// $PORT itself where it is given none. Requests wait in the socket then from before its start on, and an instance needs no check. Not with Path.
	Activation bool `json:"activation,omitempty"`
	// Timeout is how long an instance may take to become ready. Default 30s, at most 10m.
	Timeout Duration `json:"timeout"`
}

// Queue is how invocations handed over asynchronously are run.
type Queue struct {
	// Retries is how many attempts follow a failed first one, 0 to 100. Default 2; nil stands for it.
	Retries *int `json:"retries,omitempty"`
	// MaxAge is how long after its acceptance an invocation may still start an attempt. Default 6h, at most 7 days.
	MaxAge Duration `json:"maxAge"`
	// MaxPending is how many invocations may wait; more are refused with queue-full. Default 100000.
	MaxPending int `json:"maxPending"`
	// Durability is when an invocation counts as accepted: DurabilityDisk, for which the empty one stands, or DurabilityFast.
	Durability string `json:"durability,omitempty"`
	// Batch hands several invocations to the function in one request.
	Batch Batch `json:"batch,omitzero"`
	// KeepRequests keeps the request of an invocation as long as its result, so that it can be replayed.
	KeepRequests bool `json:"keepRequests,omitempty"`
	// OnSuccess and OnFailure are where the record of an invocation goes when it has ended so.
	OnSuccess Destination `json:"onSuccess,omitzero"`
	OnFailure Destination `json:"onFailure,omitzero"`
	// Callbacks are where it goes, too, if whoever hands the invocation over asks for that.
	Callbacks Callbacks `json:"callbacks,omitzero"`
}

// Batch is how many queued invocations go to the function in one request.
type Batch struct {
	// Size is how many at most, 2 to 1000; 0: each has a request of its own.
	Size int `json:"size,omitempty"`
	// Format is how they are written: BatchRequests, for which the empty one stands, or BatchEvents.
	Format string `json:"format,omitempty"`
	// Window is how long the first one waits for others, at most 1m; 0: it takes those that wait already.
	Window Duration `json:"window,omitempty"`
}

// On reports whether invocations are handed over in batches.
func (b Batch) On() bool { return b.Size > 0 }

// How a batch is written.
const (
	// BatchRequests is a JSON array of requests.
	BatchRequests = "json"
	// BatchEvents is a batch of CloudEvents in JSON.
	BatchEvents = "cloudevents"
)

const (
	maxBatch       = 1000
	maxBatchWindow = time.Minute
)

// Destination returns where the records of invocations go that ended in a state; none where they go nowhere.
func (q Queue) Destination(state InvocationState) (to Destination, end string) {
	switch state {
	case StateSucceeded:
		return q.OnSuccess, EndSuccess
	case StateDead, StateExpired:
		return q.OnFailure, EndFailure
	}
	return Destination{}, ""
}

// When an invocation counts as accepted.
const (
	// DurabilityDisk is when it is on disk.
	DurabilityDisk = "disk"
	// DurabilityFast is when the server has it: the end of a process loses nothing, but power loss may lose what was accepted in the last seconds. With an
	// idempotency key it is on disk all the same.
	DurabilityFast = "fast"
)

// Fast reports whether power loss may lose what was just accepted.
func (q Queue) Fast() bool { return q.Durability == DurabilityFast }

// The defaults and bounds of Config.
const (
	DefaultPort        = 8080
	DefaultConcurrency = 10
	DefaultMaxScale    = 100
	DefaultUtilization = 70
	DefaultRetries     = 2
	DefaultMaxPending  = 100_000

	defaultTimeout          = Duration(time.Minute)
	defaultIdleTimeout      = Duration(5 * time.Minute)
	defaultKeepAlive        = Duration(time.Minute)
	defaultKeepAliveMax     = Duration(time.Hour)
	defaultReadinessTimeout = Duration(30 * time.Second)
	defaultMaxAge           = Duration(6 * time.Hour)
	defaultCPU              = 250
	defaultMemory           = 128 * MiB
	defaultEphemeral        = 64 * MiB
	defaultPIDs             = 256
)

// WithDefaults returns the configuration with every zero field replaced by its default.
func (c Config) WithDefaults() Config {
	orInt := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	or64 := func(v *int64, d int64) {
		if *v == 0 {
			*v = d
		}
	}
	orDur := func(v *Duration, d Duration) {
		if *v == 0 {
			*v = d
		}
	}
	orInt(&c.Port, DefaultPort)
	if c.Protocol == ProtocolHTTP1 {
		// One spelling, and one id, for the default.
		c.Protocol = ""
	}
	if c.Egress == EgressNone {
		c.Egress = ""
	}
	if c.Sandbox == SandboxContainer {
		c.Sandbox = ""
	}
	if c.Queue.Durability == DurabilityDisk {
		c.Queue.Durability = ""
	}
	or64(&c.Limits.CPU, defaultCPU)
	or64(&c.Limits.Memory, defaultMemory)
	or64(&c.Limits.Ephemeral, defaultEphemeral)
	or64(&c.Limits.PIDs, defaultPIDs)
	orDur(&c.Timeout, defaultTimeout)
	orDur(&c.IdleTimeout, defaultIdleTimeout)
	orInt(&c.Concurrency, DefaultConcurrency)
	orInt(&c.Scale.Max, max(DefaultMaxScale, c.Scale.Min, c.Scale.Initial, c.Scale.Reserved))
	if c.Scale.Utilization == DefaultUtilization {
		c.Scale.Utilization = 0
	}
	if c.Scale.KeepAlive == 0 {
		// Whoever sets a time alone gets that time.
		orDur(&c.Scale.KeepAliveMax, defaultKeepAliveMax)
		c.Scale.KeepAlive = min(defaultKeepAlive, c.Scale.KeepAliveMax)
	}
	orDur(&c.Readiness.Timeout, defaultReadinessTimeout)
	orDur(&c.Queue.MaxAge, defaultMaxAge)
	orInt(&c.Queue.MaxPending, DefaultMaxPending)
	if c.Queue.Retries == nil {
		n := DefaultRetries
		c.Queue.Retries = &n
	}
	return c
}

// reservedEnv is set by the platform.
var reservedEnv = []string{"PORT", "K_SERVICE", "K_REVISION", "K_CONFIGURATION"}

// Problems lists everything that is wrong with a configuration whose defaults are filled in, each with its field named as in
// tatami.yaml. It is empty for a valid one.
func (c Config) Problems() []*fault.Error {
	var out []*fault.Error
	bad := func(field, format string, args ...any) {
		out = append(out, fault.New(fault.CodeInvalidSpec, field+": "+format, args...).WithField(field))
	}
	between := func(field string, v, lo, hi int64) {
		if v < lo || v > hi {
			bad(field, "%d is not between %d and %d", v, lo, hi)
		}
	}
	within := func(field string, v Duration, lo, hi time.Duration) {
		if v.Std() < lo || v.Std() > hi {
			bad(field, "%s is not between %s and %s", v, Duration(lo), Duration(hi))
		}
	}
	size := func(field string, v, lo int64) {
		if v < lo || v > 1<<50 {
			bad(field, "%d bytes is not between %d MiB and 1 PiB", v, lo/MiB)
		}
	}
	between("port", int64(c.Port), 1, 65535)
	switch c.Protocol {
	case "", ProtocolHTTP1, ProtocolH2C:
	default:
		bad("protocol", "%.40q is neither %s nor %s", c.Protocol, ProtocolHTTP1, ProtocolH2C)
		out[len(out)-1].Hint = "a gRPC server needs " + ProtocolH2C
	}
	switch c.Egress {
	case "", EgressNone, EgressInternet:
	default:
		bad("egress", "%.40q is neither %s nor %s", c.Egress, EgressNone, EgressInternet)
	}
	switch c.Sandbox {
	case "", SandboxContainer, SandboxGVisor:
	default:
		bad("sandbox", "%.40q is neither %s nor %s", c.Sandbox, SandboxContainer, SandboxGVisor)
	}
	between("cpu", c.Limits.CPU, 10, 1_000_000)
	size("memory", c.Limits.Memory, 16*MiB)
	size("ephemeral", c.Limits.Ephemeral, MiB)
	between("pids", c.Limits.PIDs, 8, 32768)
	within("timeout", c.Timeout, time.Millisecond, time.Hour)
	within("idleTimeout", c.IdleTimeout, time.Second, 24*time.Hour)
	between("concurrency", int64(c.Concurrency), 1, 1000)
	between("scale.max", int64(c.Scale.Max), 1, 10_000)
	for _, floor := range []struct {
		field string
		n     int
	}{{"scale.min", c.Scale.Min}, {"scale.initial", c.Scale.Initial}, {"scale.reserved", c.Scale.Reserved}} {
		between(floor.field, int64(floor.n), 0, 10_000)
		if floor.n > c.Scale.Max {
			bad(floor.field, "%d is more than scale.max, %d", floor.n, c.Scale.Max)
		}
	}
	within("scale.keepAlive", c.Scale.KeepAlive, time.Second, 24*time.Hour)
	if c.Scale.KeepAliveMax != 0 {
		within("scale.keepAliveMax", c.Scale.KeepAliveMax, c.Scale.KeepAlive.Std(), 24*time.Hour)
	}
	if c.Scale.FreezeAfter != 0 {
		within("scale.freezeAfter", c.Scale.FreezeAfter, 100*time.Millisecond, 24*time.Hour)
		if c.Scale.Awake {
			bad("scale.awake", "it leaves nothing to scale.freezeAfter")
		}
	}
	between("scale.burst", int64(c.Scale.Burst), 0, 10_000)
	if c.Scale.Utilization != 0 {
		between("scale.utilization", int64(c.Scale.Utilization), 1, 100)
	}
	if c.Scale.Window != 0 {
		within("scale.window", c.Scale.Window, 6*time.Second, time.Hour)
	}
	within("scale.downDelay", c.Scale.DownDelay, 0, time.Hour)
	within("readiness.timeout", c.Readiness.Timeout, 100*time.Millisecond, 10*time.Minute)
	if p := c.Readiness.Path; p != "" && (!strings.HasPrefix(p, "/") || strings.ContainsAny(p, " \r\n\x00#")) {
		bad("readiness.path", "%q is no absolute path", p)
	}
	if c.Readiness.Activation && c.Readiness.Path != "" {
		bad("readiness.activation", "it leaves nothing to readiness.path: an instance is ready with its socket")
	}
	if c.Queue.Retries != nil {
		between("queue.retries", int64(*c.Queue.Retries), 0, 100)
	}
	within("queue.maxAge", c.Queue.MaxAge, time.Second, 7*24*time.Hour)
	switch c.Queue.Durability {
	case "", DurabilityDisk, DurabilityFast:
	default:
		bad("queue.durability", "%.40q is neither %s nor %s", c.Queue.Durability, DurabilityDisk, DurabilityFast)
	}
	between("queue.maxPending", int64(c.Queue.MaxPending), 1, 10_000_000)
	if b := c.Queue.Batch; b.Size != 0 {
		between("queue.batch.size", int64(b.Size), 2, maxBatch)
		if b.Format != "" && b.Format != BatchRequests && b.Format != BatchEvents {
			bad("queue.batch.format", "%.40q is neither %s nor %s", b.Format, BatchRequests, BatchEvents)
		}
	} else if b.Format != "" {
		bad("queue.batch.format", "it is nothing without queue.batch.size")
	} else if b.Window != 0 {
		bad("queue.batch.window", "it is nothing without queue.batch.size")
	}
	within("queue.batch.window", c.Queue.Batch.Window, 0, maxBatchWindow)
	for _, p := range []*fault.Error{
		c.Queue.OnSuccess.problem("queue.onSuccess"), c.Queue.OnFailure.problem("queue.onFailure"), c.Queue.Callbacks.problem("queue.callbacks"),
	} {
		if p != nil {
			out = append(out, p)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(c.Env)) {
		if k == "" || strings.ContainsAny(k, "=\x00") || strings.ContainsRune(c.Env[k], 0) {
			bad("env", "%q is no name for an environment variable", k)
		}
		if slices.Contains(reservedEnv, k) {
			bad("env."+k, "it is set by the platform")
		}
	}
	for i, a := range c.Command {
		if strings.ContainsRune(a, 0) || i == 0 && a == "" {
			bad("command", "word %d is empty or holds a NUL byte", i+1)
		}
	}
	for _, p := range c.Placement.problems() {
		bad(p.Field, "%s", p.Message)
	}
	if len(c.Labels) > 64 {
		bad("labels", "%d are more than 64", len(c.Labels))
	}
	for _, k := range slices.Sorted(maps.Keys(c.Labels)) {
		if k == "" || len(k) > maxLabelKey || len(c.Labels[k]) > maxLabelValue {
			bad("labels."+k, "a label's key has 1 to 63 bytes and its value at most 255")
		}
	}
	return out
}

// Validate returns the first of Problems with the others as details, or nil.
func (c Config) Validate() error {
	p := c.Problems()
	if len(p) == 0 {
		return nil
	}
	first := fault.New(fault.CodeInvalidSpec, "%s", p[0].Message).WithField(p[0].Field)
	for _, more := range p[1:] {
		first.Details = append(first.Details, more.Message)
	}
	return first
}

// Resources is a vector of what instances take and nodes offer.
type Resources struct {
	// CPU is in millicores.
	CPU int64 `json:"cpuMillis"`
	// Memory is in bytes, ephemeral storage included.
	Memory int64 `json:"memoryBytes"`
	// Instances counts instance slots.
	Instances int64 `json:"instances"`
}

// Add returns r + o.
func (r Resources) Add(o Resources) Resources {
	return Resources{r.CPU + o.CPU, r.Memory + o.Memory, r.Instances + o.Instances}
}

// Sub returns r - o.
func (r Resources) Sub(o Resources) Resources {
	return Resources{r.CPU - o.CPU, r.Memory - o.Memory, r.Instances - o.Instances}
}

// Fits reports whether r fits into free in every dimension.
func (r Resources) Fits(free Resources) bool {
	return r.CPU <= free.CPU && r.Memory <= free.Memory && r.Instances <= free.Instances
}

// String writes the vector for people.
func (r Resources) String() string {
	return fmt.Sprintf("%dm cpu, %d MiB, %d instances", r.CPU, r.Memory/MiB, r.Instances)
}
