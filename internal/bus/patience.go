package bus

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Patiently asks the store for something that may be asked again without harm. While the servers of a cluster elect who answers it is asked again, for
// up to 10 s; a server that stands alone is asked once.
func Patiently[T any](ctx context.Context, b *Bus, ask func(ctx context.Context) (T, error)) (T, error) {
	if b.cfg.Cluster == nil {
		return ask(ctx)
	}
	return insist(ctx, electPatience, electTry, ask)
}

// insist asks for so long while nobody leads, and waits for so long for each answer: a question that is put meanwhile is lost.
func insist[T any](ctx context.Context, patience, try time.Duration, ask func(ctx context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		once, cancel := context.WithTimeout(ctx, try)
		v, err := ask(once)
		cancel()
		if err == nil || ctx.Err() != nil || !unled(err) {
			return v, err
		}
		select {
		case <-time.After(noStreamWait):
		case <-ctx.Done():
			return v, err
		}
	}
}

const (
	// watchPatience is how long a watch is begun again that nobody who leads has taken: a server that starts is not to end for that.
	watchPatience = 30 * time.Second
	// watchTry bounds the first try to begin a watch in a cluster, each further one has twice as long: the server that was to feed it may be one that
	// died a moment ago, and is not missed yet.
	watchTry = 700 * time.Millisecond
)

// watch begins a watch of a bucket. In a cluster it waits for those who are elected to feed it.
func (b *Bus) watch(ctx context.Context, kv jetstream.KeyValue, match string, opts ...jetstream.WatchOpt) (jetstream.KeyWatcher, error) {
	if b.cfg.Cluster == nil {
		return kv.Watch(ctx, match, opts...)
	}
	over := time.Now().Add(watchPatience)
	for try := watchTry; ; try *= 2 {
		w, err := beginWatch(ctx, try, kv, match, opts...)
		if err == nil || ctx.Err() != nil || !unled(err) || time.Now().After(over) {
			return w, err
		}
		select {
		case <-time.After(noStreamWait):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// watching is a watch with the context of its own that it lasts as long as.
type watching struct {
	jetstream.KeyWatcher
	end context.CancelFunc
}

// Stop ends the watch.
func (w watching) Stop() error {
	defer w.end()
	return w.KeyWatcher.Stop()
}

// beginWatch begins a watch within a time.
func beginWatch(ctx context.Context, within time.Duration, kv jetstream.KeyValue, match string, opts ...jetstream.WatchOpt) (jetstream.KeyWatcher, error) {
	lasting, end := context.WithCancel(ctx)
	late := time.AfterFunc(within, end)
	w, err := kv.Watch(lasting, match, opts...)
	if err == nil && late.Stop() {
		return watching{w, end}, nil
	}
	if err == nil {
		endWatch(w)
	}
	if lasting.Err() != nil && ctx.Err() == nil {
		err = context.DeadlineExceeded
	}
	end()
	return nil, err
}

// errBeingStored is the server's error for a message sent again whose first copy it has not got rid of yet: it may still be lost.
const errBeingStored = 10158

// unled reports whether an error may be due to nobody leading.
func unled(err error) bool {
	var api *jetstream.APIError
	return errors.Is(err, nats.ErrNoResponders) || errors.Is(err, jetstream.ErrNoStreamResponse) || errors.Is(err, nats.ErrTimeout) ||
		errors.Is(err, context.DeadlineExceeded) || errors.As(err, &api) && (api.Code == 503 || api.ErrorCode == errBeingStored)
}
