package nats

import (
	"context"
	"log/slog"
	"sync"
	"time"

	client "github.com/nats-io/nats.go"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/trigger/source"
	"github.com/tatami-faas/tatami/internal/fault"
)

const (
	// atOnce is how many messages are handed over at the same time.
	atOnce = 32
	// buffer is how many messages of a subject wait for that.
	buffer = 4096
	// flushTime bounds the wait until the server has heard the last word.
	flushTime = time.Second
)

// Source takes the messages of a trigger's subject or stream in.
type Source struct {
	trigger functions.Trigger
	sink    source.Sink
	log     *slog.Logger
}

// New makes the source of a trigger that has one.
func New(t functions.Trigger, sink source.Sink, log *slog.Logger) *Source {
	return &Source{trigger: t, sink: sink, log: log}
}

// Run hands messages over until ctx ends, and returns nil then. What of a stream is not handed over is for the next member.
func (s *Source) Run(ctx context.Context) error {
	nc, err := connect(&s.trigger, s.log)
	if err != nil {
		return err
	}
	defer func() {
		// A connection that is closed while something is on its way to it may take the last acknowledgements with it.
		_ = nc.FlushTimeout(flushTime)
		nc.Close()
	}()
	if s.trigger.NATS.Stream == "" {
		return s.subject(ctx, nc)
	}
	if err := s.stream(ctx, nc); ctx.Err() == nil {
		return err
	}
	return nil
}

// subject hands over what is published on the subject.
func (s *Source) subject(ctx context.Context, nc *client.Conn) error {
	n := s.trigger.NATS
	messages := make(chan *client.Msg, buffer)
	sub, err := nc.ChanQueueSubscribe(n.Subject, groupOf(&s.trigger), messages)
	if err == nil {
		err = nc.FlushTimeout(dialTime)
	}
	if err != nil {
		return fault.Wrap(fault.CodeUnavailable, err, "subscribing to %s", n.Subject)
	}
	s.sink.Reached()
	var work sync.WaitGroup
	for range atOnce {
		work.Go(func() {
			for {
				select {
				case m := <-messages:
					ev := EventOf(m, time.Now())
					_ = s.insist(ctx, &ev, func() {})
				case <-ctx.Done():
					return
				}
			}
		})
	}
	<-ctx.Done()
	_ = sub.Unsubscribe()
	work.Wait()
	return nil
}

// insist hands one event over, or lets it go where it can never be an invocation, and calls again before each further try. Its error is that, or ctx's.
func (s *Source) insist(ctx context.Context, ev *functions.Event, again func()) error {
	err := source.Insist(ctx, s.sink, ev, "", s.log.With("trigger", s.trigger.ID().String()), again)
	if fault.KindOf(err) == fault.Invalid {
		s.letGo(ev, err)
	}
	return err
}

func (s *Source) letGo(ev *functions.Event, err error) {
	s.log.Error("a message is let go: it can be no invocation", "trigger", s.trigger.ID().String(), "event", ev.ID, "err", err)
}
