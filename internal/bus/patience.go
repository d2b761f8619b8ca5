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
	return insist(ctx, electPatience, firstStore, electTry, ask)
}

// firstTry is how long the first answer of several is waited for: a question that is put while one leader follows another is lost, and they follow within
// some tens of milliseconds where the one before has given way. FirstStore is that of what may store something: it takes longer where much is stored.
const (
	firstTry   = 100 * time.Millisecond
	firstStore = 300 * time.Millisecond
)

// insist asks for so long while nobody leads: a question that is put meanwhile is lost. The first answer is waited for as long as first says, each further
// one twice as long as the one before, up to most. It is asked again at the end of that, or of noStreamWait, however soon it failed.
func insist[T any](ctx context.Context, patience, first, most time.Duration, ask func(ctx context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for each := min(first, most); ; each = min(2*each, most) {
		pause := time.NewTimer(min(each, noStreamWait))
		v, err := within(ctx, each, ask)
		if err == nil || ctx.Err() != nil || !unled(err) {
			pause.Stop()
			return v, err
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return v, err
		}
	}
}

// within asks once, and waits for the answer for so long.
func within[T any](ctx context.Context, each time.Duration, ask func(ctx context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, each)
	defer cancel()
	return ask(ctx)
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

// Stop ends the watch. The library then removes the consumer behind it on its own: whoever stops is not to wait for the server's answer to that, which does
// not come for seconds where nobody leads.
func (w watching) Stop() error {
	w.end()
	return nil
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

// errUnderWay is with the error of a try that met a message of its subject which is not stored yet: it may be the one of the try before.
var errUnderWay = errors.New("another message of the subject is on its way")

// retried marks the error of such a try, which tells neither that somebody else was first nor that nobody was: it is made again.
func retried(tries int, err error) error {
	var api *jetstream.APIError
	if tries > 1 && errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant {
		return errors.Join(errUnderWay, err)
	}
	return err
}

// unled reports whether an error may be due to nobody leading.
func unled(err error) bool {
	var api *jetstream.APIError
	return busy(err) || errors.Is(err, errUnderWay) || errors.Is(err, nats.ErrNoResponders) || errors.Is(err, jetstream.ErrNoStreamResponse) ||
		errors.Is(err, nats.ErrTimeout) || errors.Is(err, context.DeadlineExceeded) || errors.As(err, &api) && api.ErrorCode == errBeingStored
}

// busy reports whether the server said that it cannot do now what it was asked. To watches it says that in the words of the client before.
func busy(err error) bool {
	var api *jetstream.APIError
	var before *nats.APIError
	return errors.As(err, &api) && api.Code == 503 || errors.As(err, &before) && before.Code == 503
}
