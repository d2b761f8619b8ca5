package bus

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// consumerTries is how often a consumer is made that nobody feeds, before its election is waited for. The first try lasts consumerTry, each
	// further one twice as long.
	consumerTries = 3
	consumerTry   = time.Second
)

// Consumer makes a durable consumer of the work queue, or takes the one that there is, with the configuration given. In a cluster the server that is to
// feed a new one may have died a moment ago and not be missed yet: it is made anew then, for an election takes longer. Errors are the client's; see Fault.
func (b *Bus) Consumer(ctx context.Context, cfg jetstream.ConsumerConfig) (jetstream.Consumer, error) {
	stream := b.stores.invocations
	if b.cfg.Cluster == nil {
		return stream.CreateOrUpdateConsumer(ctx, cfg)
	}
	for n, try := 0, consumerTry; n < consumerTries; n, try = n+1, 2*try {
		once, cancel := context.WithTimeout(ctx, try)
		c, err := stream.CreateOrUpdateConsumer(once, cfg)
		if err == nil || ctx.Err() != nil || !unled(err) {
			cancel()
			return c, err
		}
		cancel()
		once, cancel = context.WithTimeout(ctx, try)
		err = stream.DeleteConsumer(once, cfg.Durable)
		cancel()
		if err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
			b.log.Debug("a consumer that nobody feeds is not removed", "consumer", cfg.Durable, "err", err)
		}
	}
	return stream.CreateOrUpdateConsumer(ctx, cfg)
}

// RemoveConsumer removes a consumer of the work queue; it is no error where there is none. In a cluster the server whose answer it is may be dead: the
// question is put again then, and finds the consumer gone.
func (b *Bus) RemoveConsumer(ctx context.Context, name string) error {
	remove := func(ctx context.Context) (struct{}, error) {
		return struct{}{}, b.stores.invocations.DeleteConsumer(ctx, name)
	}
	var err error
	if b.cfg.Cluster == nil {
		_, err = remove(ctx)
	} else {
		_, err = insist(ctx, electPatience, firstStore, ledPatience, remove)
	}
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return nil
	}
	return err
}
