package client

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
)

// Queues returns the queue of every function that has one.
func (c *Client) Queues(ctx context.Context, namespace string) ([]v1.FunctionQueue, error) {
	return fetch[[]v1.FunctionQueue](ctx, c, http.MethodGet, "/v1/queues"+query("namespace", namespace), nil)
}

// Queue returns the depth of a function's queue.
func (c *Client) Queue(ctx context.Context, r functions.Ref) (*v1.FunctionQueue, error) {
	return fetchOne[v1.FunctionQueue](ctx, c, http.MethodGet, functionPath(r)+"/queue", nil)
}

// QueueList lists invocations that wait in a function's queue; state may be empty.
func (c *Client) QueueList(ctx context.Context, r functions.Ref, state functions.InvocationState, limit int) ([]v1.InvocationStatus, error) {
	return fetch[[]v1.InvocationStatus](ctx, c, http.MethodGet, functionPath(r)+"/queue/invocations"+query("state", string(state), "limit", number(limit)), nil)
}

// DeadLetters lists the dead letters of a function, the latest first.
func (c *Client) DeadLetters(ctx context.Context, r functions.Ref, limit int) ([]v1.DeadLetter, error) {
	return fetch[[]v1.DeadLetter](ctx, c, http.MethodGet, functionPath(r)+"/queue/dead"+query("limit", number(limit)), nil)
}

// DeadLetter returns one dead letter.
func (c *Client) DeadLetter(ctx context.Context, id functions.InvocationID) (*v1.DeadLetter, error) {
	return fetchOne[v1.DeadLetter](ctx, c, http.MethodGet, "/v1/dead/"+url.PathEscape(string(id)), nil)
}

// Invocation returns a queued invocation.
func (c *Client) Invocation(ctx context.Context, id functions.InvocationID) (*v1.InvocationStatus, error) {
	return fetchOne[v1.InvocationStatus](ctx, c, http.MethodGet, "/v1/invocations/"+url.PathEscape(string(id)), nil)
}

// Cancel ends a queued invocation that has not ended. The state is still running where its attempt takes long to end.
func (c *Client) Cancel(ctx context.Context, id functions.InvocationID) (*v1.InvocationStatus, error) {
	return fetchOne[v1.InvocationStatus](ctx, c, http.MethodDelete, "/v1/invocations/"+url.PathEscape(string(id)), nil)
}

// Redrive hands the invocation of a dead letter over again, to run on a revision where one is named, and takes the letter away.
func (c *Client) Redrive(ctx context.Context, id functions.InvocationID, rev functions.RevisionID) (*v1.Redriven, error) {
	return fetchOne[v1.Redriven](ctx, c, http.MethodPost, "/v1/dead/"+url.PathEscape(string(id))+"/redrive"+query("revision", string(rev)), nil)
}

// Replay runs a stored invocation once more, on a revision where one is named, and compares what it answers.
func (c *Client) Replay(ctx context.Context, id functions.InvocationID, rev functions.RevisionID) (*v1.Replayed, error) {
	return fetchOne[v1.Replayed](ctx, c, http.MethodPost, "/v1/invocations/"+url.PathEscape(string(id))+"/replay"+query("revision", string(rev)), nil)
}

// Ended lists invocations of a function that have ended and were accepted between two times, the oldest first; a zero time is no bound.
func (c *Client) Ended(ctx context.Context, r functions.Ref, from, to time.Time, limit int) ([]v1.InvocationStatus, error) {
	stamp := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return t.UTC().Format(time.RFC3339Nano)
	}
	return fetch[[]v1.InvocationStatus](ctx, c, http.MethodGet, functionPath(r)+"/queue/ended"+query("from", stamp(from), "to", stamp(to), "limit", number(limit)), nil)
}

// PurgeDead removes dead letters of a function, the latest first, at most limit.
func (c *Client) PurgeDead(ctx context.Context, r functions.Ref, limit int) (*v1.Purged, error) {
	return fetchOne[v1.Purged](ctx, c, http.MethodDelete, functionPath(r)+"/queue/dead"+query("limit", number(limit)), nil)
}
