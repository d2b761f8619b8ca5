package gateway

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/queue"
	"github.com/tatami-faas/tatami/internal/fault"
)

// ownOnly is a queue that knows nothing of deliveries: their ids follow from those of invocations, and what a destination answers is not for
// whoever asked for the invocation.
type ownOnly struct{ Queue }

// Lookup is the queue's.
func (o ownOnly) Lookup(ctx context.Context, id functions.InvocationID, wait time.Duration) (queue.Status, error) {
	if err := o.own(ctx, id); err != nil {
		return queue.Status{}, err
	}
	return o.Queue.Lookup(ctx, id, wait)
}

// Follow is the queue's.
func (o ownOnly) Follow(ctx context.Context, id functions.InvocationID, fn func(queue.Status) error) error {
	if err := o.own(ctx, id); err != nil {
		return err
	}
	return o.Queue.Follow(ctx, id, fn)
}

// Cancel is the queue's.
func (o ownOnly) Cancel(ctx context.Context, id functions.InvocationID) (queue.Status, error) {
	if err := o.own(ctx, id); err != nil {
		return queue.Status{}, err
	}
	return o.Queue.Cancel(ctx, id)
}

func (o ownOnly) own(ctx context.Context, id functions.InvocationID) error {
	st, err := o.Queue.Lookup(ctx, id, 0)
	if err != nil {
		return err
	}
	if _, _, delivery := st.Ref.Delivers(); delivery {
		return fault.New(fault.CodeInvocationNotFound, "there is no invocation %.64q", string(id))
	}
	return nil
}

// depthOf reads how many destinations in a row led to a request: none where it does not say.
func depthOf(h http.Header) (int, error) {
	values := h.Values(queue.HeaderDepth)
	if len(values) == 0 {
		return 0, nil
	}
	n, err := strconv.ParseUint(values[0], 10, 16)
	if err != nil || len(values) > 1 {
		return 0, fault.New(fault.CodeInvalidRequest, "%s: %.40q is no number, or not the only one", queue.HeaderDepth, values[0]).WithField(queue.HeaderDepth)
	}
	return int(n), nil
}
