package queue

import (
	"context"
	"net/http"

	"github.com/tatami-faas/tatami/functions"
)

// DataPath runs functions: what the queue needs of gateway/invoke.
type DataPath interface {
	// Lookup returns the live revision of a function; function-not-found where there is none. It answers from memory.
	Lookup(ctx context.Context, ref functions.Ref) (*functions.Revision, error)
	// Lease waits for a slot of the function, behind what was called synchronously, until ctx ends.
	Lease(ctx context.Context, ref functions.Ref) (Lease, error)
	// SetBacklog tells how many queued invocations of the function could run now.
	SetBacklog(ref functions.Ref, n int)
}

// Lease is the right to one slot of an instance.
type Lease interface {
	// RoundTrip sends a request to the instance.
	RoundTrip(r *http.Request) (*http.Response, error)
	// Release gives the slot back; the response's body must be read or closed before.
	Release()
	Revision() *functions.Revision
	Instance() functions.InstanceID
	// Cold reports whether the lease waited for an instance to start.
	Cold() bool
}

// Direct is a Lease that ends a request by itself once the function's timeout is over.
type Direct interface {
	// RoundTripAs is RoundTrip for an attempt of an invocation, which it names to the function. It reads the request's header, and keeps nothing of it.
	RoundTripAs(r *http.Request, id functions.InvocationID, attempt int) (*http.Response, error)
}

// Stoppable is a Lease whose function can be told to stop.
type Stoppable interface {
	// HangUp tells the function that nobody waits, and leaves the way open for its answer. Where it was not told, sent says that it may have
	// begun all the same.
	HangUp() (told, sent bool)
	// End has the instance stopped.
	End(reason string) error
}
