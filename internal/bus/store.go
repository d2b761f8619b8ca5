package bus

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// storeTimeout bounds the wait for the server's word that a message is stored.
	storeTimeout = 5 * time.Second
	// noStreamTries and noStreamWait are how often, and after what wait, a message is sent again that no stream took.
	noStreamTries = 3
	noStreamWait  = 250 * time.Millisecond
	// electPatience is how long a cluster is given to elect a server that takes a message, and electTry how long an answer is waited for before a
	// message is sent again that is stored once however often it is sent: what is sent while nobody leads may be lost.
	electPatience = 10 * time.Second
	electTry      = 2 * time.Second
)

// Store stores a message in the stream of its subject and returns its sequence. It does what the JetStream client's PublishMsg does, at
// half of its cost: nearly every answer has one form, which needs no JSON decoder. Errors are the client's; see Fault.
func (b *Bus) Store(ctx context.Context, m *nats.Msg) (uint64, error) {
	resp, err := b.send(ctx, m)
	if err != nil {
		return 0, err
	}
	return wordOf(resp)
}

// StoreThen stores a message as Store does, without a goroutine that waits, and calls then once with its sequence or the error. There is no second try,
// but in a cluster whose servers elect who takes the message: it is sent again for up to 10 s, and is not to be changed until then. Then may run before
// StoreThen returns, and must not wait: all others wait behind it.
func (b *Bus) StoreThen(m *nats.Msg, then func(sequence uint64, err error)) { b.later.store(m, then) }

// StoreDurably stores a message as Store does and returns when that is on disk, with what else was stored in the streams named. Errors of both are
// told apart by their codes: see Fault, Barrier. After an error the message may be stored all the same.
func (b *Bus) StoreDurably(ctx context.Context, m *nats.Msg, streams ...string) error {
	if b.cfg.Cluster != nil {
		// An election is waited for; what is stored then is with most of the servers.
		_, err := b.Store(ctx, m)
		return err
	}
	// One wait for both: the caller's goroutine is woken once.
	done := make(chan error, 1)
	b.StoreThen(m, func(_ uint64, err error) {
		if err != nil {
			done <- err
			return
		}
		b.BarrierThen(func(err error) { done <- err }, streams...)
	})
	select {
	case err := <-done:
		if !errors.Is(err, jetstream.ErrNoStreamResponse) {
			return err
		}
	case <-ctx.Done():
		return ctx.Err()
	}
	// The streams are there: the server has only just come to them.
	if _, err := b.Store(ctx, m); err != nil {
		return err
	}
	return b.Barrier(ctx, streams...)
}

// explained reads an answer of any form.
func explained(data []byte) (uint64, error) {
	var ack struct {
		Error *jetstream.APIError `json:"error"`
		*jetstream.PubAck
	}
	if err := json.Unmarshal(data, &ack); err != nil {
		return 0, jetstream.ErrInvalidJSAck
	}
	if ack.Error != nil {
		return 0, fmt.Errorf("nats: %w", ack.Error)
	}
	if ack.PubAck == nil || ack.Stream == "" {
		return 0, jetstream.ErrInvalidJSAck
	}
	return ack.Sequence, nil
}

// send sends a message to its stream and returns the answer.
func (b *Bus) send(ctx context.Context, m *nats.Msg) (*nats.Msg, error) {
	if b.cfg.Cluster != nil {
		return b.insist(ctx, m)
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	for try := 1; ; try++ {
		resp, err := b.nc.RequestMsgWithContext(ctx, m)
		if !errors.Is(err, nats.ErrNoResponders) {
			return resp, err
		}
		if try == noStreamTries {
			return nil, jetstream.ErrNoStreamResponse
		}
		select {
		case <-time.After(noStreamWait):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// insist sends a message until a server of the cluster has taken it. One that is stored once however often it is sent is sent again where no answer comes, too.
func (b *Bus) insist(ctx context.Context, m *nats.Msg) (*nats.Msg, error) {
	ask := func(ctx context.Context) (*nats.Msg, error) { return b.nc.RequestMsgWithContext(ctx, m) }
	if m.Header.Get(jetstream.MsgIDHeader) != "" {
		return insist(ctx, electPatience, firstStore, electTry, func(ctx context.Context) (*nats.Msg, error) {
			resp, err := ask(ctx)
			if err != nil || !beingStored(resp.Data) {
				return resp, err
			}
			_, err = explained(resp.Data)
			return resp, err
		})
	}
	ctx, cancel := context.WithTimeout(ctx, electPatience)
	defer cancel()
	for {
		resp, err := within(ctx, storeTimeout, ask)
		if ctx.Err() != nil || !errors.Is(err, nats.ErrNoResponders) {
			return resp, err
		}
		select {
		case <-time.After(firstTry):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// beingStored reports whether an answer says that the message was sent before, and is not stored yet.
func beingStored(data []byte) bool {
	if _, stored := storedAs(data); stored {
		return false
	}
	var api *jetstream.APIError
	_, err := explained(data)
	return errors.As(err, &api) && api.ErrorCode == errBeingStored
}

// storedAs reads the sequence from an answer that says that a message is stored; false for one in any other form.
func storedAs(data []byte) (uint64, bool) {
	if !bytes.HasPrefix(data, []byte(`{"stream":"`)) {
		return 0, false
	}
	_, rest, ok := bytes.Cut(data, []byte(`"seq":`))
	if !ok {
		return 0, false
	}
	end := bytes.IndexAny(rest, ",}")
	if end < 0 {
		return 0, false
	}
	seq, err := strconv.ParseUint(string(rest[:end]), 10, 64)
	return seq, err == nil && seq > 0
}
