package v1

import (
	"time"

	"github.com/tatami-faas/tatami/functions"
)

// FunctionQueue is a function's queue.
type FunctionQueue struct {
	Namespace string `json:"namespace"`
	Function  string `json:"function"`
	QueueDepth
}

// Ref returns the name of the queue's function.
func (q FunctionQueue) Ref() functions.Ref {
	return functions.Ref{Namespace: q.Namespace, Name: q.Function}
}

// InvocationStatus is a queued invocation: where it stands and what became of it.
type InvocationStatus struct {
	ID        functions.InvocationID    `json:"id"`
	Namespace string                    `json:"namespace"`
	Function  string                    `json:"function"`
	State     functions.InvocationState `json:"state" enum:"accepted,scheduled,running,retry-wait,succeeded,cancelled,expired,dead"`
	Reason    string                    `json:"reason,omitempty"`
	Method    string                    `json:"method,omitempty"`
	Path      string                    `json:"path,omitempty"`
	Attempts  []functions.Attempt       `json:"attempts"`
	Accepted  time.Time                 `json:"accepted,omitzero"`
	Deadline  time.Time                 `json:"deadline,omitzero"`
	// Next is when the attempt to come is due, where it waits for a time.
	Next     time.Time `json:"next,omitzero"`
	Finished time.Time `json:"finished,omitzero"`
	Status   int       `json:"status,omitempty"`
	BodySize int64     `json:"bodySize,omitempty"`
}

// Ref returns the name of the invocation's function.
func (i InvocationStatus) Ref() functions.Ref {
	return functions.Ref{Namespace: i.Namespace, Name: i.Function}
}

// QueuedInvocation is a request to a function as the queue keeps it.
type QueuedInvocation struct {
	ID        functions.InvocationID `json:"id"`
	Namespace string                 `json:"namespace"`
	Function  string                 `json:"function"`
	Trigger   string                 `json:"trigger"`
	Method    string                 `json:"method"`
	Path      string                 `json:"path"`
	Query     string                 `json:"query,omitempty"`
	Headers   map[string][]string    `json:"headers,omitempty"`
	Body      []byte                 `json:"body,omitempty"`
	BodyRef   *functions.BodyRef     `json:"bodyRef,omitempty"`
	Accepted  time.Time              `json:"accepted"`
	Deadline  time.Time              `json:"deadline"`
	Attempt   int                    `json:"attempt"`
	History   []functions.Attempt    `json:"history,omitempty"`
	RedriveOf functions.InvocationID `json:"redriveOf,omitempty"`
	// Of is the invocation whose end caused this one, where it goes to a destination.
	Of functions.InvocationID `json:"of,omitempty"`
}

// Ref returns the name of the invocation's function.
func (i QueuedInvocation) Ref() functions.Ref {
	return functions.Ref{Namespace: i.Namespace, Name: i.Function}
}

// DeadLetter is what is kept of an invocation that failed for good.
type DeadLetter struct {
	Invocation QueuedInvocation `json:"invocation"`
	Reason     string           `json:"reason"`
	Died       time.Time        `json:"died"`
}

// Redriven names the invocation that repeats a dead one.
type Redriven struct {
	Invocation functions.InvocationID `json:"invocation"`
	RedriveOf  functions.InvocationID `json:"redriveOf"`
}

// Purged says how many were removed.
type Purged struct {
	Removed int `json:"removed"`
}
