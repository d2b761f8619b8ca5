package v1

import (
	"github.com/tatami-faas/tatami/functions"
)

// Replayed is what an invocation gave when it ended, beside what it gave when it was replayed.
type Replayed struct {
	Invocation functions.InvocationID `json:"invocation"`
	Namespace  string                 `json:"namespace"`
	Function   string                 `json:"function"`
	// Revision is the one that it was replayed against.
	Revision functions.RevisionID `json:"revision"`
	Before   Output               `json:"before"`
	Now      Output               `json:"now"`
	// Differences name what differs: state, status, body, or a header's name. Headers that tell of time and length only are left out.
	Differences []string `json:"differences"`
}

// Ref returns the name of the invocation's function.
func (r Replayed) Ref() functions.Ref { return functions.Ref{Namespace: r.Namespace, Name: r.Function} }

// Output is the answer to an invocation.
type Output struct {
	State    functions.InvocationState `json:"state" enum:"accepted,succeeded,cancelled,expired,dead"`
	Revision functions.RevisionID      `json:"revision,omitempty"`
	// Status is 0, and Reason says why, where there was no answer.
	Status  int                 `json:"status,omitempty"`
	Reason  string              `json:"reason,omitempty"`
	Headers map[string][]string `json:"headers,omitempty"`
	Body    []byte              `json:"body,omitempty"`
	// Cut says that Body is the beginning only.
	Cut  bool               `json:"cut,omitempty"`
	Took functions.Duration `json:"took"`
}
