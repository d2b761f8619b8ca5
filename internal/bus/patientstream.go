package bus

import (
	"context"

	"github.com/nats-io/nats.go/jetstream"
)

// patientStream is a stream of a cluster: what may be asked of it again without harm is asked again while the servers elect who answers.
type patientStream struct {
	jetstream.Stream
	bus *Bus
}

// patient has the streams be patient.
func (s *stores) patient(b *Bus) {
	s.invocations, s.dead, s.keys = patientStream{s.invocations, b}, patientStream{s.dead, b}, patientStream{s.keys, b}
	for name, o := range s.objects {
		o.stream = patientStream{o.stream, b}
		s.objects[name] = o
	}
}

// Info is described with jetstream.Stream, as are the others.
func (s patientStream) Info(ctx context.Context, opts ...jetstream.StreamInfoOpt) (*jetstream.StreamInfo, error) {
	return Patiently(ctx, s.bus, func(ctx context.Context) (*jetstream.StreamInfo, error) { return s.Stream.Info(ctx, opts...) })
}

// GetMsg reads a message.
func (s patientStream) GetMsg(ctx context.Context, seq uint64, opts ...jetstream.GetMsgOpt) (*jetstream.RawStreamMsg, error) {
	return Patiently(ctx, s.bus, func(ctx context.Context) (*jetstream.RawStreamMsg, error) { return s.Stream.GetMsg(ctx, seq, opts...) })
}

// GetLastMsgForSubject reads the last message of a subject.
func (s patientStream) GetLastMsgForSubject(ctx context.Context, subject string) (*jetstream.RawStreamMsg, error) {
	return Patiently(ctx, s.bus, func(ctx context.Context) (*jetstream.RawStreamMsg, error) {
		return s.Stream.GetLastMsgForSubject(ctx, subject)
	})
}

// Purge removes messages.
func (s patientStream) Purge(ctx context.Context, opts ...jetstream.StreamPurgeOpt) error {
	_, err := Patiently(ctx, s.bus, func(ctx context.Context) (struct{}, error) { return struct{}{}, s.Stream.Purge(ctx, opts...) })
	return err
}

// CreateOrUpdateConsumer makes a consumer, or changes it.
func (s patientStream) CreateOrUpdateConsumer(ctx context.Context, cfg jetstream.ConsumerConfig) (jetstream.Consumer, error) {
	return Patiently(ctx, s.bus, func(ctx context.Context) (jetstream.Consumer, error) {
		return s.Stream.CreateOrUpdateConsumer(ctx, cfg)
	})
}

// DeleteConsumer removes a consumer. After an election it may be said not to exist because it was removed a moment before.
func (s patientStream) DeleteConsumer(ctx context.Context, name string) error {
	_, err := Patiently(ctx, s.bus, func(ctx context.Context) (struct{}, error) { return struct{}{}, s.Stream.DeleteConsumer(ctx, name) })
	return err
}
