package bus

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
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
	doing := "reading what is stored in " + stream
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

// readBatch takes one batch in; more says whether there are messages from next on.
func readBatch(ctx context.Context, batch <-chan *nats.Msg, from uint64, fn func(uint64, string, nats.Header)) (next uint64, more bool, err error) {
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
		fn(seq, m.Header.Get("Nats-Subject"), m.Header)
		next = seq + 1
	}
}
