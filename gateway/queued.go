package gateway

import (
	"context"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/queue"
	"github.com/tatami-faas/tatami/internal/fault"
)

// Queued tells which requests to a public listener of the domain are about what is stored, and not plain calls of functions, or health.
func Queued(domain string) func(*http.Request) bool {
	return func(r *http.Request) bool {
		if _, below := splitHost(r.Host, domain); below || strings.HasPrefix(r.URL.Path, functionPrefix) {
			return r.Header.Get("Prefer") != "" || r.Header.Get("Idempotency-Key") != ""
		}
		return r.URL.Path != "/healthz" && r.URL.Path != "/readyz"
	}
}

// Names names the invocation that a request to a public listener of the domain is to become, "" where it becomes none, or has a key of its own.
func Names(domain string) func(*http.Request) string {
	return func(r *http.Request) string {
		if len(r.Header[headerKey]) > 0 {
			return ""
		}
		ref, queued := splitHost(r.Host, domain)
		if path := rawPath(r); queued {
			queued = prefersAsync(r)
		} else if ref, _, queued = splitFunction(path, functionPrefix); queued {
			queued = prefersAsync(r)
		} else {
			ref, _, queued = splitFunction(path, asyncPrefix)
			queued = queued && r.Method == http.MethodPost
		}
		if !queued {
			return ""
		}
		return string(functions.NewInvocationID(ref))
	}
}

type namedKey struct{}

// named is what a request is told of the invocation that it is to become.
type named struct {
	id    functions.InvocationID
	again bool
}

// Named has the request of a context become an invocation of a name; again says that it may be one already.
func Named(ctx context.Context, id string, again bool) context.Context {
	return context.WithValue(ctx, namedKey{}, named{functions.InvocationID(id), again})
}

// nameOf is empty where nobody has named the invocation.
func nameOf(ctx context.Context) named {
	n, _ := ctx.Value(namedKey{}).(named)
	return n
}

// NoQueue is the queue of a server where nothing is queued: whoever asks it is told so.
type NoQueue struct{}

func noQueue() error {
	return fault.New(fault.CodeUnavailable, "this server does not lead, and holds no queue").WithHint("try again")
}

// Submit fails.
func (NoQueue) Submit(context.Context, queue.Request) (queue.Receipt, error) {
	return queue.Receipt{}, noQueue()
}

// Once fails.
func (NoQueue) Once(context.Context, queue.Request, func(context.Context, queue.Call) (int, http.Header, queue.Outcome)) (queue.Answer, error) {
	return queue.Answer{}, noQueue()
}

// OpenAnswer fails.
func (NoQueue) OpenAnswer(context.Context, *queue.Answer) (io.ReadCloser, int64, error) {
	return nil, 0, noQueue()
}

// Lookup fails.
func (NoQueue) Lookup(context.Context, functions.InvocationID, time.Duration) (queue.Status, error) {
	return queue.Status{}, noQueue()
}

// Follow fails.
func (NoQueue) Follow(context.Context, functions.InvocationID, func(queue.Status) error) error {
	return noQueue()
}

// Cancel fails.
func (NoQueue) Cancel(context.Context, functions.InvocationID) (queue.Status, error) {
	return queue.Status{}, noQueue()
}

// OpenBody fails.
func (NoQueue) OpenBody(context.Context, *functions.Result) (io.ReadCloser, int64, error) {
	return nil, 0, noQueue()
}

// Ready is closed.
func (NoQueue) Ready() <-chan struct{} {
	ch := make(chan struct{})
	close(ch)
	return ch
}
