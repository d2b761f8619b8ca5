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
	if errors.Is(err, jetstream.ErrMsgNotFound) || err == nil && isTrace(m) {
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
	seq, err := k.put(ctx, hash, m)
	if revision == 0 && IsConflict(err) {
		// The key may have no record, but the trace of one.
		if there, gerr := k.stream.GetLastMsgForSubject(ctx, m.Subject); gerr == nil && isTrace(there) {
			m.Header[jetstream.ExpectedLastSubjSeqHeader] = []string{strconv.FormatUint(there.Sequence, 10)}
			seq, err = k.put(ctx, hash, m)
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

func (k *Keys) put(ctx context.Context, hash string, m *nats.Msg) (uint64, error) {
	tries := 0
	seq, err := Patiently(ctx, k.bus, func(ctx context.Context) (uint64, error) {
		tries++
		seq, err := k.bus.Store(ctx, m)
		return seq, retried(tries, err)
	})
	if IsConflict(err) && tries > 1 {
		// It may be the record that an earlier try stored, whose answer was lost.
		if own, ok := k.stored(ctx, hash, m.Data); ok {
			return own, nil
		}
	}
	return seq, err
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

// traceKept is how long a trace stays: by far longer than a crash can bring back what was removed before it.
const traceKept = 2 * time.Minute

// stateTrace is the state of what is no record, but the trace of one that was removed.
const stateTrace = "removed"

// Forget removes the record of the given revision, and no other: it is no error where there is another, or none. After the next Barrier the record does not
// come back, whatever happens. The server forgets with the last message of a block that the block was there, and a crash may bring its file back: what stands
// behind it then, for a while, is a trace, which is taken for no record.
func (k *Keys) Forget(ctx context.Context, hash string, revision uint64) error {
	_, err := Patiently(ctx, k.bus, func(ctx context.Context) (struct{}, error) { return struct{}{}, k.stream.DeleteMsg(ctx, revision) })
	if err == nil || errors.Is(err, jetstream.ErrMsgDeleteUnsuccessful) {
		_, err = k.put(ctx, hash, &nats.Msg{Subject: KeySubject(hash), Header: nats.Header{
			jetstream.ExpectedLastSubjSeqHeader: {"0"},
			jetstream.MsgTTLHeader:              {strconv.Itoa(int(traceKept / time.Second))},
			keyHeaderState:                      {stateTrace},
		}})
	}
	if err != nil && !IsConflict(err) {
		return k.bus.storeFault(err, "removing an idempotency key")
	}
	return nil
}

func isTrace(m *jetstream.RawStreamMsg) bool { return m.Header.Get(keyHeaderState) == stateTrace }

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
