package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// headerBatch is how many messages eachHeader asks for at once.
const headerBatch = 1000

// eachHeader calls fn with the subject and the header of each message of a stream that matches, of those that were there when it began.
// It does not read what they hold. The stream is no work queue.
func (b *Bus) eachHeader(ctx context.Context, stream, match string, fn func(subject string, h nats.Header)) error {
	doing := "reading the headers of " + stream
	s, err := b.js.Stream(ctx, stream)
	if err != nil {
		return b.storeFault(err, doing)
	}
	end := s.CachedInfo().State.LastSeq
	if s.CachedInfo().State.Msgs == 0 {
		return nil
	}
	c, err := s.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{HeadersOnly: true, FilterSubjects: []string{match}})
	if err != nil {
		return b.storeFault(err, doing)
	}
	for done := c.CachedInfo().NumPending == 0; !done; {
		batch, err := c.Fetch(headerBatch, jetstream.FetchMaxWait(time.Second))
		if err != nil {
			return b.storeFault(err, doing)
		}
		n := 0
		for m := range batch.Messages() {
			n++
			meta, err := m.Metadata()
			if err != nil {
				return fmt.Errorf("%s: %w", doing, err)
			}
			done = done || meta.Sequence.Stream >= end || meta.NumPending == 0
			fn(m.Subject(), m.Headers())
		}
		if err := batch.Error(); err != nil && ctx.Err() == nil && !errors.Is(err, nats.ErrTimeout) {
			return b.storeFault(err, doing)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		done = done || n == 0
	}
	return nil
}
