package api

import (
	"context"
	"io"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/gateway/auth"
	"github.com/tatami-faas/tatami/internal/bus"
)

// Deps is what the API needs of the other parts.
type Deps struct {
	// Bus holds the records and the artifacts. Required.
	Bus *bus.Bus
	// Auth guards the API; nil lets every request through, which is for tests of single handlers only.
	Auth *auth.Auth
	// Routes is the gateway's route table. Required.
	Routes Routes
	// Queue is the queue of invocations. Required.
	Queue Queue
	// Triggers are the triggers at work. Required.
	Triggers Triggers
	// Logs is where the functions' logs are. Required.
	Logs LogSource
	// Exec runs processes in instances. Required.
	Exec Executor
	// Images resolves image references. Required.
	Images ImageResolver
	// Traffic returns what the gateways saw. Required.
	Traffic func(ctx context.Context) Traffic
	// Info returns what only the process knows of itself. Required.
	Info func() Info
	// Doctor runs the server's own checks; nil: there are none.
	Doctor func(ctx context.Context) []v1.Check
	// Extra mounts what belongs on the control listener besides, behind the same guard; nil: nothing.
	Extra func(chi.Router)
}

// Routes is the gateway's route table.
type Routes interface {
	// WaitApplied returns when the routes know the given revision of the bucket of functions.
	WaitApplied(ctx context.Context, revision uint64) error
}

// Queue is what the API asks of the queue of invocations.
type Queue interface {
	// Depths returns the depth of every queue that is not empty.
	Depths() map[functions.Ref]v1.QueueDepth
	// List returns invocations of a function that are not in a terminal state; state may be empty.
	List(ctx context.Context, ref functions.Ref, state functions.InvocationState, limit int) ([]v1.InvocationStatus, error)
	// Dead returns dead letters of a function, the latest first.
	Dead(ctx context.Context, ref functions.Ref, limit int) ([]functions.DeadLetter, error)
	// ShowDead returns one dead letter.
	ShowDead(ctx context.Context, id functions.InvocationID) (functions.DeadLetter, error)
	// Redrive hands the invocation of a dead letter over again and takes the letter away; it returns the new one's id. It runs on a revision where
	// one is named.
	Redrive(ctx context.Context, id functions.InvocationID, rev functions.RevisionID) (functions.InvocationID, error)
	// Replay runs a stored invocation once more, on a revision where one is named, and tells what it gave and what it gives now.
	Replay(ctx context.Context, id functions.InvocationID, rev functions.RevisionID) (v1.Replayed, error)
	// Ended returns invocations of a function that have ended and were accepted between two times, the oldest first.
	Ended(ctx context.Context, ref functions.Ref, from, to time.Time, limit int) ([]v1.InvocationStatus, error)
	// PurgeDead removes dead letters of a function, at most limit, and says how many.
	PurgeDead(ctx context.Context, ref functions.Ref, limit int) (int, error)
	// Cancel ends an invocation that has not ended.
	Cancel(ctx context.Context, id functions.InvocationID) (v1.InvocationStatus, error)
	// Lookup returns where an invocation stands.
	Lookup(ctx context.Context, id functions.InvocationID) (v1.InvocationStatus, error)
}

// LogQuery picks log lines of a function.
type LogQuery struct {
	Ref      functions.Ref
	Instance functions.InstanceID
	Since    time.Time
	Tail     int
	Follow   bool
}

// LogSource is where logs are read.
type LogSource interface {
	// Logs calls fn for each line, in order, on the caller's goroutine, until they end or fn returns an error. With Follow they end when
	// ctx does.
	Logs(ctx context.Context, q LogQuery, fn func(v1.LogLine) error) error
}

// Executor runs a process in an instance's sandbox and returns its exit code.
type Executor interface {
	Exec(ctx context.Context, id functions.InstanceID, args []string, stdin io.Reader, stdout, stderr io.Writer) (int, error)
}

// ImageResolver finds the image that a reference names for an architecture.
type ImageResolver interface {
	Resolve(ctx context.Context, reference, architecture string) (functions.Artifact, error)
}

// Info is what the process knows of itself.
type Info struct {
	// PublicURL is where functions are called, ControlURL where the API is over TCP; both without a slash at the end.
	PublicURL  string
	ControlURL string
	Domain     string
	DataDir    string
	Started    time.Time
	// Warnings are sentences for the operator, besides those that the API finds itself.
	Warnings []string
}
