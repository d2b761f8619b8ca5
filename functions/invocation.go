package functions

import "time"

// Invocation is a request to a function as the queue stores it.
type Invocation struct {
	Schema    int          `json:"schema"`
	ID        InvocationID `json:"id"`
	Namespace string       `json:"namespace"`
	Function  string       `json:"function"`
	// Trigger is what caused it: "http", "queue" or "destination" here.
	Trigger string `json:"trigger"`
	Method  string `json:"method"`
	// Path is the path below the function, escaped as it came in, beginning with '/'.
	Path string `json:"path"`
	// Query is the raw query without '?'.
	Query string `json:"query,omitempty"`
	// Header holds the end-to-end headers only.
	Header map[string][]string `json:"header,omitempty"`
	Body   []byte              `json:"body,omitempty"`
	// BodyRef is set, and Body is empty, when the body is in the object store.
	BodyRef *BodyRef `json:"bodyRef,omitempty"`
	// Accepted is when the invocation was made durable.
	Accepted time.Time `json:"accepted"`
	// NotBefore is when the attempt to be made may start, where it waits for a time.
	NotBefore time.Time `json:"notBefore,omitzero"`
	// Deadline is when the last attempt may start.
	Deadline time.Time `json:"deadline"`
	// Attempt is the number of the attempt to be made, from 1.
	Attempt int `json:"attempt"`
	// History holds the attempts made.
	History []Attempt `json:"history,omitempty"`
	// RedriveOf is the invocation that this one repeats.
	RedriveOf InvocationID `json:"redriveOf,omitempty"`
	// OrderingKey has the function's invocations with the same one run one after the other, in the order of their acceptance.
	OrderingKey string `json:"orderingKey,omitempty"`
	// Revision is the one that it is to run on; empty: the live one at each attempt.
	Revision RevisionID `json:"revision,omitempty"`
	// Of is the invocation whose end caused this one, where it is a destination's; Hops is how many destinations in a row led to it.
	Of   InvocationID `json:"of,omitempty"`
	Hops int          `json:"hops,omitempty"`
	// Callback is the URL that the record goes to when the invocation has ended; of what takes it there, the one that it is taken to.
	Callback string `json:"callback,omitempty"`
}

// Ref returns the name of the invocation's function.
func (i *Invocation) Ref() Ref { return Ref{Namespace: i.Namespace, Name: i.Function} }

// BodyRef names a body in the object store.
type BodyRef struct {
	Object string `json:"object"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// Attempt is one try of an invocation.
type Attempt struct {
	Number   int        `json:"number"`
	Revision RevisionID `json:"revision,omitempty"`
	Instance InstanceID `json:"instance,omitempty"`
	Started  time.Time  `json:"started"`
	Ended    time.Time  `json:"ended"`
	// Status is the function's HTTP status; 0 where it gave none.
	Status int `json:"status,omitempty"`
	// Error is the code of the platform's fault, Message its text; empty where the function answered.
	Error   string `json:"error,omitempty"`
	Message string `json:"message,omitempty"`
	// Cold says that the attempt waited for an instance to start.
	Cold bool `json:"cold,omitempty"`
}

// InvocationState is where an invocation stands. Only the terminal ones are stored; the others are derived.
type InvocationState string

// The states of an invocation.
const (
	StateAccepted  InvocationState = "accepted"
	StateScheduled InvocationState = "scheduled"
	StateRunning   InvocationState = "running"
	StateRetryWait InvocationState = "retry-wait"
	StateSucceeded InvocationState = "succeeded"
	StateCancelled InvocationState = "cancelled"
	StateExpired   InvocationState = "expired"
	StateDead      InvocationState = "dead"
)

// Terminal reports whether nothing follows the state.
func (s InvocationState) Terminal() bool {
	switch s {
	case StateSucceeded, StateCancelled, StateExpired, StateDead:
		return true
	}
	return false
}

// Result is the terminal record of an invocation, kept for a time. The first one written wins.
type Result struct {
	Schema    int             `json:"schema"`
	ID        InvocationID    `json:"id"`
	Namespace string          `json:"namespace"`
	Function  string          `json:"function"`
	State     InvocationState `json:"state"`
	// Reason says why the state is not succeeded.
	Reason   string    `json:"reason,omitempty"`
	Attempts []Attempt `json:"attempts"`
	// Status, Header and Body are the last answer of the function; Status is 0 where it gave none.
	Status   int                 `json:"status,omitempty"`
	Header   map[string][]string `json:"header,omitempty"`
	Body     []byte              `json:"body,omitempty"`
	BodyRef  *BodyRef            `json:"bodyRef,omitempty"`
	Accepted time.Time           `json:"accepted"`
	Finished time.Time           `json:"finished"`
	// Request is what was asked, where the function keeps requests; its history is not part of it.
	Request *Invocation `json:"request,omitempty"`
}

// DeadLetter is what is kept of an invocation that failed for good.
type DeadLetter struct {
	Schema     int        `json:"schema"`
	Invocation Invocation `json:"invocation"`
	Reason     string     `json:"reason"`
	Died       time.Time  `json:"died"`
}
