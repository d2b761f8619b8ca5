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

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

// Keys holds the records of idempotency keys, by the key's hash. Each is kept until its own time: a bucket would lose that with the first
// change of a record, so it is a stream with one message a subject.
type Keys struct {
	bus    *Bus
	stream jetstream.Stream
}

// keyHeaderState says what state a record is in, to find those that are open without reading them all.
const keyHeaderState = "Tatami-State"

// Stream is the name of the stream behind the keys, for Barrier.
func (k *Keys) Stream() string { return StreamKeys }

// Get returns a record and its revision; not-found where there is none.
func (k *Keys) Get(ctx context.Context, hash string) (functions.KeyRecord, uint64, error) {
	m, err := k.stream.GetLastMsgForSubject(ctx, KeySubject(hash))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return functions.KeyRecord{}, 0, fault.New(fault.CodeNotFound, "there is no such idempotency key")
	}
	if err != nil {
		return functions.KeyRecord{}, 0, k.bus.storeFault(err, "reading an idempotency key")
	}
	rec, err := Decode[functions.KeyRecord](m.Data)
	if err != nil {
		return functions.KeyRecord{}, 0, fmt.Errorf("reading an idempotency key: %w", err)
	}
	return rec, m.Sequence, nil
}

// Put stores a record in place of the one of the given revision, 0 for none, until rec.Until, and returns its revision; conflict where the
// key has another one.
func (k *Keys) Put(ctx context.Context, hash string, rec *functions.KeyRecord, revision uint64) (uint64, error) {
	m, err := keyMessage(hash, rec, revision)
	if err != nil {
		return 0, err
	}
	tries := 0
	seq, err := Patiently(ctx, k.bus, func(ctx context.Context) (uint64, error) {
		tries++
		return k.bus.Store(ctx, m)
	})
	if IsConflict(err) && tries > 1 {
		// It may be the record that an earlier try stored, whose answer was lost.
		if own, ok := k.stored(ctx, hash, m.Data); ok {
			return own, nil
		}
	}
	if IsConflict(err) {
		return 0, fault.New(fault.CodeConflict, "the idempotency key was changed meanwhile").WithHint("try again")
	}
	if err != nil {
		return 0, k.bus.storeFault(err, "writing an idempotency key")
	}
	return seq, nil
}

// stored is the revision of the key's record where that is the one given.
func (k *Keys) stored(ctx context.Context, hash string, data []byte) (uint64, bool) {
	m, err := k.stream.GetLastMsgForSubject(ctx, KeySubject(hash))
	if err != nil || !bytes.Equal(m.Data, data) {
		return 0, false
	}
	return m.Sequence, true
}

// Note is Put for what may get lost: it waits for nothing and tells of no conflict.
func (k *Keys) Note(hash string, rec *functions.KeyRecord, revision uint64) error {
	m, err := keyMessage(hash, rec, revision)
	if err != nil {
		return err
	}
	return k.bus.nc.PublishMsg(m)
}

// Delete removes a record; it is no error where there is none.
func (k *Keys) Delete(ctx context.Context, hash string) error {
	if err := k.stream.Purge(ctx, jetstream.WithPurgeSubject(KeySubject(hash))); err != nil {
		return k.bus.storeFault(err, "removing an idempotency key")
	}
	return nil
}

// Open calls fn with the hash of each record that is pending or running. What comes while it reads may be among them.
func (k *Keys) Open(ctx context.Context, fn func(hash string)) error {
	return k.bus.EachStored(ctx, StreamKeys, subjectKeys+".>", func(_ uint64, subject string, h nats.Header) {
		switch functions.KeyState(h.Get(keyHeaderState)) {
		case functions.KeyPending, functions.KeyRunning:
			fn(subject[len(subjectKeys)+1:])
		}
	})
}

func keyMessage(hash string, rec *functions.KeyRecord, revision uint64) (*nats.Msg, error) {
	data, err := json.Marshal(rec)
	if err != nil {
		return nil, fmt.Errorf("encoding an idempotency key: %w", err)
	}
	left := max(time.Until(rec.Until), time.Second)
	return &nats.Msg{Subject: KeySubject(hash), Data: data, Header: nats.Header{
		jetstream.ExpectedLastSubjSeqHeader: {strconv.FormatUint(revision, 10)},
		jetstream.MsgTTLHeader:              {strconv.FormatInt(int64(left/time.Second), 10)},
		keyHeaderState:                      {string(rec.State)},
	}}, nil
}
