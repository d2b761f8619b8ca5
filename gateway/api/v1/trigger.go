package v1

import (
	"time"

	"github.com/tatami-faas/tatami/functions"
)

// TriggerView is a trigger and how it does.
type TriggerView struct {
	functions.Trigger
	// Kind is the source that is set.
	Kind   string        `json:"kind"`
	Status TriggerStatus `json:"status"`
	// Firings are the latest firings of a cron trigger, the newest last; a list of triggers leaves them out.
	Firings []functions.Firing `json:"firings,omitempty"`
}

// TriggerStatus tells how a trigger does. The counts are of this gateway, since it started.
type TriggerStatus struct {
	// State is active, paused or failing.
	State string `json:"state"`
	// Reason says what failed last, until something succeeds.
	Reason string `json:"reason,omitempty"`
	// Accepted counts the events that became invocations, Filtered those that the filters did not take, Refused those that the queue did not.
	Accepted int64 `json:"accepted"`
	Filtered int64 `json:"filtered"`
	Refused  int64 `json:"refused"`
	// Last is when an event was accepted last.
	Last time.Time `json:"last,omitzero"`
	// Lag is how many records of a Kafka topic, of the partitions that this gateway has, wait to be taken in.
	Lag *int64 `json:"lag,omitempty"`
	// Next is when a cron trigger fires next.
	Next time.Time `json:"next,omitzero"`
}

// Emitted is an event and the invocation that it became.
type Emitted struct {
	// Event is the event's id.
	Event string `json:"event"`
	// Trigger is the name of the trigger that took it.
	Trigger string `json:"trigger"`
	// ID is the invocation's.
	ID functions.InvocationID `json:"id,omitempty"`
	// Location is where the invocation's state and result are found, on the public address.
	Location string `json:"location,omitempty"`
	// Error and Detail say why there is none: the code and the message of a fault.
	Error  string `json:"error,omitempty"`
	Detail string `json:"detail,omitempty"`
}

// EmitRequest is an event to try a trigger with. What is left out is filled in.
type EmitRequest struct {
	ID      string `json:"id,omitempty"`
	Source  string `json:"source,omitempty"`
	Type    string `json:"type,omitempty"`
	Subject string `json:"subject,omitempty"`
	// ContentType is of Data.
	ContentType string `json:"contentType,omitempty"`
	// Data is the payload.
	Data []byte `json:"data,omitempty"`
}
