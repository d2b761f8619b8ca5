package bus

import (
	"time"

	"github.com/tatami-faas/tatami/functions"
)

// Envelope is the head of every message between the parts.
type Envelope struct {
	Schema int `json:"schema"`
	// Boot identifies the run of the sender's process: a sequence counts within it.
	Boot string `json:"boot"`
	// Node is the node concerned: the sender's for reports and tables, the receiver's for commands, the gateway's for demand.
	Node functions.NodeID `json:"node"`
	// Instance is the instance concerned, where the message is about one.
	Instance functions.InstanceID `json:"instance,omitempty"`
	// Sequence grows by one with each message of a sender on a subject, from 1. A gap tells that messages were missed.
	Sequence uint64 `json:"sequence"`
	// Epoch is the revision of the scheduler's leadership: a worker refuses commands of an older one.
	Epoch uint64 `json:"epoch"`
}

func (e *Envelope) schema() int { return e.Schema }

// Demand is what a gateway knows of the need for instances. It states levels, so that repeating it is harmless: functions that are not
// named have no need and no traffic. It is repeated while anything waits, and once a second while there is traffic. When a function's
// waiting list becomes longer than what is known to be starting, a partial one goes out at once.
type Demand struct {
	Envelope
	// Gateway identifies the sender.
	Gateway   string           `json:"gateway"`
	Functions []FunctionDemand `json:"functions"`
	// Partial says that functions which are not named are as they were stated last. A reader that does not know the field is put right by
	// the next message without it.
	Partial bool `json:"partial,omitempty"`
	// Part numbers the partial messages, from 1, that together state everything; zero where the message is none of them. With the Last of them
	// a function that neither they nor a message in between named has no need and no traffic, unless a gap tells that one was missed.
	Part int  `json:"part,omitempty"`
	Last bool `json:"last,omitempty"`
}

// FunctionDemand is the demand for one function.
type FunctionDemand struct {
	Namespace string `json:"namespace"`
	Function  string `json:"function"`
	// Waiting counts the invocations without a slot, those handed over synchronously.
	Waiting int `json:"waiting"`
	// Backlog counts the queued invocations that could run now.
	Backlog int `json:"backlog"`
	// InFlight counts the slots held.
	InFlight int `json:"inFlight"`
	// Concurrency is the mean of InFlight + Waiting since the last message that named the function.
	Concurrency float64 `json:"concurrency"`
	// Quiet is how long ago the last one ended, where none waits or runs; zero where that is not known.
	Quiet functions.Duration `json:"quiet,omitempty"`
}

// Ref returns the name of the function.
func (d FunctionDemand) Ref() functions.Ref {
	return functions.Ref{Namespace: d.Namespace, Name: d.Function}
}

// Endpoint is an instance that takes requests.
type Endpoint struct {
	Instance  functions.InstanceID `json:"instance"`
	Node      functions.NodeID     `json:"node"`
	Namespace string               `json:"namespace"`
	Function  string               `json:"function"`
	Revision  functions.RevisionID `json:"revision"`
	// Slots is how many invocations the instance runs at once.
	Slots int `json:"slots"`
	// Started is when the worker took the command, Ready when the instance answered its readiness check.
	Started time.Time        `json:"started"`
	Ready   time.Time        `json:"ready"`
	Phases  functions.Phases `json:"phases"`
	// Frozen says that the instance stood still when the table was made: the connections that it has are not to be used again, for it may have
	// slept over the end that it gives idle ones. Taking a slot thaws it.
	Frozen bool `json:"frozen,omitempty"`
}

// Ref returns the name of the endpoint's function.
func (e Endpoint) Ref() functions.Ref {
	return functions.Ref{Namespace: e.Namespace, Name: e.Function}
}

// EndpointTable is a worker's push to the gateways: what became ready and what takes no more requests. A receiver that sees a gap in
// the sequence, or a new boot, publishes on SubjectEndpointsWanted and gets a full table.
type EndpointTable struct {
	Envelope
	// Full says that Endpoints is everything there is on the node.
	Full      bool       `json:"full"`
	Endpoints []Endpoint `json:"endpoints,omitempty"`
	// Listener is where the worker's instances are reached; nil where that is within one process.
	Listener *Listener `json:"listener,omitempty"`
	// Removed lists instances that left: drained, stopped or failed.
	Removed []Departure `json:"removed,omitempty"`
}

// Departure is an instance that takes no more requests.
type Departure struct {
	Instance functions.InstanceID    `json:"instance"`
	State    functions.InstanceState `json:"state"`
	Reason   string                  `json:"reason,omitempty"`
	// Failed is set when the instance never became ready: the function's waiters learn of it.
	Failed *StartFailure `json:"failed,omitempty"`
}

// StartFailure is an instance that ended, or was ended, before it was ready.
type StartFailure struct {
	Namespace string               `json:"namespace"`
	Function  string               `json:"function"`
	Revision  functions.RevisionID `json:"revision"`
	Logs      []string             `json:"logs,omitempty"`
}

// Action is what a command asks for.
type Action string

// The actions of a command. Each is idempotent.
const (
	// ActionStart starts the instance unless it exists.
	ActionStart Action = "start"
	// ActionStop ends the instance if no slot of it is held, nor was within the command's Quiet, else does nothing but report it.
	ActionStop Action = "stop"
	// ActionDrain takes no more requests, waits for those that run until the deadline, then ends the instance.
	ActionDrain Action = "drain"
	// ActionReport asks for a report of the instance, or, where the command names none, of everything there is on the node.
	ActionReport Action = "report"
	// ActionPrepare makes the revision's artifact ready on the node; it names no instance. It is a hint, which a worker that is busy may drop.
	ActionPrepare Action = "prepare"
)

// Command is a message of the scheduler to a worker about the instance in its envelope.
type Command struct {
	Envelope
	Action Action `json:"action"`
	// Revision is what to run, or to get ready for; set for ActionStart and ActionPrepare.
	Revision *functions.Revision `json:"revision,omitempty"`
	// Reason is why, for people and for the instance's last state.
	Reason string `json:"reason,omitempty"`
	// Asked is when the demand that led to the command reached the scheduler.
	Asked time.Time `json:"asked"`
	// Quiet is for how long no slot must have been held, for ActionStop.
	Quiet functions.Duration `json:"quiet,omitzero"`
	// Deadline is when a drain ends by force.
	Deadline time.Time `json:"deadline,omitzero"`
}

// Report is what a worker says of its node: every change at once, and everything every two seconds.
type Report struct {
	Envelope
	// Full says that Instances is everything there is on the node.
	Full      bool             `json:"full"`
	State     NodeState        `json:"state"`
	Instances []InstanceReport `json:"instances,omitempty"`
}

// NodeState is a node as its worker sees it.
type NodeState struct {
	Name         string `json:"name"`
	Architecture string `json:"architecture"`
	// Capacity is what the machine has, Allocatable what the scheduler may give away.
	Capacity    functions.Resources `json:"capacity"`
	Allocatable functions.Resources `json:"allocatable"`
	// CPUUsed is in millicores over the last report's interval, MemoryUsed in bytes: the whole machine's.
	CPUUsed    int64 `json:"cpuUsedMillis"`
	MemoryUsed int64 `json:"memoryUsedBytes"`
	// Draining says that the worker is stopping and starts nothing more.
	Draining bool `json:"draining,omitempty"`
	// Departed says that the worker has ended, and all that ran on the node: it is not lost when nothing more is heard of it.
	Departed bool              `json:"departed,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"`
	// Lacks are the features that the node does not have, each with the reason.
	Lacks map[functions.Feature]string `json:"lacks,omitempty"`
	// Artifacts lists the digests that are unpacked on the node. Where ArtifactsKept is set it lists those only that came since the last report
	// which spoke of them: the others, which may be thousands, are as they were. A report that was asked for always lists all.
	Artifacts     []string `json:"artifacts,omitempty"`
	ArtifactsKept bool     `json:"artifactsKept,omitempty"`
}

// InstanceReport is an instance as its worker sees it. One that is gone is reported once as such and then no more.
type InstanceReport struct {
	Instance  functions.InstanceID    `json:"instance"`
	Namespace string                  `json:"namespace"`
	Function  string                  `json:"function"`
	Revision  functions.RevisionID    `json:"revision"`
	State     functions.InstanceState `json:"state"`
	// Reason says why the instance is in its state.
	Reason string          `json:"reason,omitempty"`
	Exit   *functions.Exit `json:"exit,omitempty"`
	// Unavailable says of an instance that failed to start that something it needs was away: another start may succeed.
	Unavailable bool `json:"unavailable,omitempty"`
	// Logs are the last lines of one that failed.
	Logs []string `json:"logs,omitempty"`
	// Since is when the state began.
	Since time.Time `json:"since"`
	// Started is when the worker took the command; for an adopted instance, as recorded then.
	Started time.Time `json:"started"`
	Slots   int       `json:"slots"`
	// Held counts the slots in use.
	Held int `json:"held"`
	// LastUsed is when a slot was last given back; zero when none ever was.
	LastUsed time.Time           `json:"lastUsed,omitzero"`
	Reserved functions.Resources `json:"reserved"`
	Usage    functions.Usage     `json:"usage"`
	Phases   functions.Phases    `json:"phases"`
	// Adopted says that the instance outlived a restart of its worker.
	Adopted bool `json:"adopted,omitempty"`
	PID     int  `json:"pid,omitempty"`
}

// Ref returns the name of the instance's function.
func (r InstanceReport) Ref() functions.Ref {
	return functions.Ref{Namespace: r.Namespace, Name: r.Function}
}
