package nats

import (
	"context"
	"errors"
	"sync"
	"time"

	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

const (
	// ackWait is how long a message stays with a gateway that does not say it is at work on it; it is longer than source.MostWait.
	ackWait = 30 * time.Second
	// lagEvery is how often it is asked how much waits.
	lagEvery = time.Second
)

// stream hands over the messages of the stream, and acknowledges each when its invocation is durable. It returns when something fails, be it ctx.
func (s *Source) stream(ctx context.Context, nc *client.Conn) error {
	n := s.trigger.NATS
	failed := func(err error, doing string) error {
		return fault.Wrap(fault.CodeUnavailable, err, "%s the stream %s", doing, n.Stream)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return failed(err, "opening")
	}
	stream, err := js.Stream(ctx, n.Stream)
	if err != nil {
		return failed(err, "opening")
	}
	made := stream.CachedInfo().Created
	consumer, err := s.consumer(ctx, stream)
	if err != nil {
		return failed(err, "making a consumer of")
	}
	it, err := consumer.Messages(jetstream.PullMaxMessages(2 * atOnce))
	if err != nil {
		return failed(err, "reading")
	}
	s.sink.Reached()
	var work sync.WaitGroup
	defer work.Wait()
	defer it.Stop()
	defer context.AfterFunc(ctx, it.Stop)()
	watching, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	work.Go(func() { s.watchLag(watching, consumer) })
	slots := make(chan struct{}, atOnce)
	for {
		m, err := it.Next()
		if err != nil {
			return failed(err, "reading")
		}
		slots <- struct{}{}
		work.Go(func() {
			s.handOver(ctx, m, made)
			<-slots
		})
	}
}

// consumer returns the trigger's durable consumer; it is made where it is missing, and where it is there it goes on where it was.
func (s *Source) consumer(ctx context.Context, stream jetstream.Stream) (jetstream.Consumer, error) {
	n := s.trigger.NATS
	c, err := stream.Consumer(ctx, groupOf(&s.trigger))
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		cfg := jetstream.ConsumerConfig{
			Durable: groupOf(&s.trigger), Description: "the Tatami trigger " + s.trigger.ID().String(), FilterSubject: n.Subject,
			AckPolicy: jetstream.AckExplicitPolicy, AckWait: ackWait, MaxDeliver: -1, DeliverPolicy: jetstream.DeliverNewPolicy,
		}
		if n.Start == functions.StartEarliest {
			cfg.DeliverPolicy = jetstream.DeliverAllPolicy
		}
		return stream.CreateConsumer(ctx, cfg)
	}
	if err != nil {
		return nil, err
	}
	if cfg := c.CachedInfo().Config; cfg.FilterSubject != n.Subject {
		cfg.FilterSubject = n.Subject
		return stream.UpdateConsumer(ctx, cfg)
	}
	return c, nil
}

// handOver makes an invocation of a message and acknowledges it.
func (s *Source) handOver(ctx context.Context, m jetstream.Msg, made time.Time) {
	ev, err := StoredEventOf(m, made)
	if err == nil {
		err = s.insist(ctx, &ev, func() { _ = m.InProgress() })
	} else {
		s.letGo(&ev, err)
	}
	switch {
	case err == nil:
		err = m.Ack()
	case ctx.Err() != nil:
		err = m.Nak()
	default:
		err = m.TermWithReason("it can be no invocation")
	}
	if err != nil {
		s.log.Warn("what became of a message could not be said, it comes again", "trigger", s.trigger.ID().String(), "event", ev.ID, "err", err)
	}
}

// watchLag tells how much waits, until ctx ends.
func (s *Source) watchLag(ctx context.Context, c jetstream.Consumer) {
	t := time.NewTicker(lagEvery)
	defer t.Stop()
	for {
		if info, err := c.Info(ctx); err == nil {
			s.sink.Lag(int64(info.NumPending) + int64(info.NumAckPending))
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}
