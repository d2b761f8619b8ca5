package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"
)

const (
	// storedBatch and storedBytes are how much EachStored asks for at once: for each answer the server counts all that matches.
	storedBatch = 20_000
	storedBytes = 16 << 20
	// storedPatience bounds the wait for the next message of a batch.
	storedPatience = 10 * time.Second
)

// EachStored calls fn with the sequence, the subject and the header of each message of a stream that matches, in their order, without a consumer: it
// works on a work queue, too. What comes while it reads may be among them.
func (b *Bus) EachStored(ctx context.Context, stream, match string, fn func(seq uint64, subject string, h nats.Header)) error {
	return b.eachStored(ctx, stream, match, false, func(m storedMessage) { fn(m.seq, m.subject, m.header) })
}

// storedMessage is a message as a stream has it; without its body where that was not asked for.
type storedMessage struct {
	seq     uint64
	subject string
	header  nats.Header
	time    time.Time
	body    []byte
}

// eachStored is EachStored, with the bodies where they are wanted. No watch of the library does it: it ends early, or never, where messages go while
// it reads.
func (b *Bus) eachStored(ctx context.Context, stream, match string, bodies bool, fn func(storedMessage)) error {
	doing := "reading what is stored in " + stream
	if b.cfg.Cluster != nil {
		if err := b.eachWhereWritten(ctx, stream, match, bodies, fn); err != nil {
			return b.storeFault(err, doing)
		}
		return nil
	}
	inbox := b.nc.NewInbox()
	batch := make(chan *nats.Msg, storedBatch+1)
	sub, err := b.nc.ChanSubscribe(inbox, batch)
	if err != nil {
		return b.storeFault(err, doing)
	}
	defer func() { _ = sub.Unsubscribe() }()
	for next, more := uint64(1), true; more; {
		body, err := json.Marshal(map[string]any{"seq": next, "batch": storedBatch, "max_bytes": storedBytes, "next_by_subj": match})
		if err != nil {
			return fmt.Errorf("%s: %w", doing, err)
		}
		if err := b.nc.PublishRequest("$JS.API.DIRECT.GET."+stream, inbox, body); err != nil {
			return b.storeFault(err, doing)
		}
		if next, more, err = readBatch(ctx, batch, next, fn); err != nil {
			return b.storeFault(err, doing)
		}
	}
	return nil
}

// storedAtOnce is how many messages of a cluster's stream are asked for at the same time.
const storedAtOnce = 32

// eachWhereWritten is EachStored of a cluster: the server that leads the stream gives one message at a time, and the others may know less. So the
// sequences are split among several who ask.
func (b *Bus) eachWhereWritten(ctx context.Context, stream, match string, bodies bool, fn func(storedMessage)) error {
	st, err := Patiently(ctx, b, func(ctx context.Context) (jetstream.Stream, error) { return b.js.Stream(ctx, stream) })
	if err != nil {
		return err
	}
	st = patientStream{st, b}
	state := st.CachedInfo().State
	if state.Msgs == 0 {
		return nil
	}
	var parts [storedAtOnce][]storedMessage
	each := (state.LastSeq-state.FirstSeq)/storedAtOnce + 1
	g, gctx := errgroup.WithContext(ctx)
	for i := range parts {
		from := state.FirstSeq + uint64(i)*each
		g.Go(func() (err error) {
			parts[i], err = readRange(gctx, st, match, bodies, from, from+each)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, part := range parts {
		for _, m := range part {
			fn(m)
		}
	}
	return nil
}

// readRange reads the messages that match of the sequences at or above from, and below to.
func readRange(ctx context.Context, st jetstream.Stream, match string, bodies bool, from, to uint64) (out []storedMessage, err error) {
	for from < to {
		m, err := st.GetMsg(ctx, from, jetstream.WithGetMsgSubject(match))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			break
		}
		if err != nil {
			return nil, err
		}
		if m.Sequence < to {
			got := storedMessage{m.Sequence, m.Subject, m.Header, m.Time, nil}
			if bodies {
				got.body = m.Data
			}
			out = append(out, got)
		}
		from = m.Sequence + 1
	}
	return out, nil
}

// readBatch takes one batch in; more says whether there are messages from next on.
func readBatch(ctx context.Context, batch <-chan *nats.Msg, from uint64, fn func(storedMessage)) (next uint64, more bool, err error) {
	timer := time.NewTimer(storedPatience)
	defer timer.Stop()
	for next = from; ; timer.Reset(storedPatience) {
		var m *nats.Msg
		select {
		case m = <-batch:
		case <-timer.C:
			return next, false, nats.ErrTimeout
		case <-ctx.Done():
			return next, false, ctx.Err()
		}
		switch status := m.Header.Get("Status"); status {
		case "":
		case "204":
			return next, m.Header.Get("Nats-Num-Pending") != "0" && next > from, nil
		case "404":
			return next, false, nil
		default:
			return next, false, fmt.Errorf("the server says %s %s", status, m.Header.Get("Description"))
		}
		seq, err := strconv.ParseUint(m.Header.Get("Nats-Sequence"), 10, 64)
		if err != nil {
			return next, false, fmt.Errorf("a stored message has no sequence: %w", err)
		}
		at, err := time.Parse(time.RFC3339Nano, m.Header.Get("Nats-Time-Stamp"))
		if err != nil {
			return next, false, fmt.Errorf("a stored message has no time: %w", err)
		}
		fn(storedMessage{seq, m.Header.Get("Nats-Subject"), m.Header, at, m.Data})
		next = seq + 1
	}
}
