package bus

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/tatami-faas/tatami/internal/fault"
)

// Table is a key-value bucket whose values are records of one type in JSON. A record of a newer schema is refused with an error and
// never overwritten by Update, whose revision nobody can have read.
type Table[T any] struct {
	bus     *Bus
	bucket  string
	missing fault.Code
	kv      jetstream.KeyValue
	// stream and prefix are the bucket's stream and what its subjects begin with.
	stream, prefix string
}

// Entry is a record with its key and its revision.
type Entry[T any] struct {
	Key      string
	Value    T
	Revision uint64
}

// Event is a change seen by Watch.
type Event[T any] struct {
	Entry[T]
	// Deleted says that the key is gone; Value is empty then.
	Deleted bool
	// Synced marks the one event, without key, that follows what existed when Watch was called.
	Synced bool
}

func newTable[T any](b *Bus, bucket string, missing fault.Code) *Table[T] {
	return &Table[T]{
		bus: b, bucket: bucket, missing: missing, kv: b.stores.buckets[bucket], stream: bucketStream(bucket), prefix: "$KV." + bucket + ".",
	}
}

// Stream is the name of the stream behind the table, for Barrier.
func (t *Table[T]) Stream() string { return t.stream }

// Get returns the record and its revision; not-found where there is none.
func (t *Table[T]) Get(ctx context.Context, key string) (T, uint64, error) {
	var zero T
	e, err := t.entry(ctx, key)
	if err != nil {
		return zero, 0, t.fail(err, "reading", key)
	}
	v, err := Decode[T](e.Value())
	if err != nil {
		return zero, 0, fmt.Errorf("reading %s %s: %w", t.bucket, key, err)
	}
	return v, e.Revision(), nil
}

// Create stores a record under a key that has none; conflict where it has one.
func (t *Table[T]) Create(ctx context.Context, key string, v T) (uint64, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return 0, fmt.Errorf("encoding %s %s: %w", t.bucket, key, err)
	}
	return t.CreateEncoded(ctx, key, data)
}

// CreateEncoded is Create for a record that is encoded already.
func (t *Table[T]) CreateEncoded(ctx context.Context, key string, data []byte) (uint64, error) {
	return t.writeEncoded(ctx, key, data, func(ctx context.Context, data []byte) (uint64, error) {
		if plainKey(key) {
			// As the client does it first; what it does after a conflict is for keys that were deleted.
			rev, err := t.bus.Store(ctx, t.creation(key, data))
			if !IsConflict(err) {
				return rev, err
			}
		}
		return t.kv.Create(ctx, key, data)
	})
}

// CreateEncodedThen is CreateEncoded for whoever does not wait: then is called once, with the error if there is one, and must not wait. The record
// may be stored all the same after an error that is no conflict.
func (t *Table[T]) CreateEncodedThen(key string, data []byte, then func(error)) {
	t.bus.StoreThen(t.creation(key, data), func(_ uint64, err error) {
		if err != nil {
			err = t.fail(err, "writing", key)
		}
		then(err)
	})
}

// creation is the message that stores a record where there is none.
func (t *Table[T]) creation(key string, data []byte) *nats.Msg {
	return &nats.Msg{Subject: t.prefix + key, Data: data, Header: first}
}

// first is the header of a message that is to be the first of its subject. Nobody changes it.
var first = nats.Header{jetstream.ExpectedLastSubjSeqHeader: {"0"}}

// plainKey reports whether a key has nothing in it that the client would have to judge.
func plainKey(key string) bool {
	for i := range len(key) {
		c := key[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '-' {
			return false
		}
	}
	return key != ""
}

// Update replaces the record of the given revision; conflict where the key has another one.
func (t *Table[T]) Update(ctx context.Context, key string, v T, revision uint64) (uint64, error) {
	return t.write(ctx, key, v, func(ctx context.Context, data []byte) (uint64, error) { return t.kv.Update(ctx, key, data, revision) })
}

// Put stores a record whatever was there.
func (t *Table[T]) Put(ctx context.Context, key string, v T) (uint64, error) {
	return t.write(ctx, key, v, func(ctx context.Context, data []byte) (uint64, error) { return t.kv.Put(ctx, key, data) })
}

func (t *Table[T]) write(ctx context.Context, key string, v T, put func(context.Context, []byte) (uint64, error)) (uint64, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return 0, fmt.Errorf("encoding %s %s: %w", t.bucket, key, err)
	}
	return t.writeEncoded(ctx, key, data, put)
}

func (t *Table[T]) writeEncoded(ctx context.Context, key string, data []byte, put func(context.Context, []byte) (uint64, error)) (uint64, error) {
	tries := 0
	rev, err := Patiently(ctx, t.bus, func(ctx context.Context) (uint64, error) {
		tries++
		rev, err := put(ctx, data)
		return rev, retried(tries, err)
	})
	if tries > 1 && IsConflict(err) {
		// It may be the record that an earlier try stored, whose answer was lost.
		if e, gerr := t.entry(ctx, key); gerr == nil && bytes.Equal(e.Value(), data) {
			return e.Revision(), nil
		}
	}
	if err != nil {
		return 0, t.fail(err, "writing", key)
	}
	return rev, nil
}

func (t *Table[T]) entry(ctx context.Context, key string) (jetstream.KeyValueEntry, error) {
	return Patiently(ctx, t.bus, func(ctx context.Context) (jetstream.KeyValueEntry, error) { return t.kv.Get(ctx, key) })
}

// Delete removes the record; it is no error where there is none.
func (t *Table[T]) Delete(ctx context.Context, key string) error {
	return t.delete(ctx, key)
}

// DeleteRevision removes the record of the given revision; conflict where the key has another one.
func (t *Table[T]) DeleteRevision(ctx context.Context, key string, revision uint64) error {
	return t.delete(ctx, key, jetstream.LastRevision(revision))
}

func (t *Table[T]) delete(ctx context.Context, key string, opts ...jetstream.KVDeleteOpt) error {
	tries := 0
	_, err := Patiently(ctx, t.bus, func(ctx context.Context) (struct{}, error) {
		tries++
		return struct{}{}, retried(tries, t.kv.Delete(ctx, key, opts...))
	})
	if tries > 1 && IsConflict(err) {
		// An earlier try, whose answer was lost, may have removed it.
		if _, gerr := t.entry(ctx, key); errors.Is(gerr, jetstream.ErrKeyNotFound) {
			return nil
		}
	}
	if err != nil {
		return t.fail(err, "deleting", key)
	}
	return nil
}

// List returns the records whose keys match, which is a key with the wildcards '*' for one word and '>' for the rest; "" matches all.
// They come in the order of their last change.
func (t *Table[T]) List(ctx context.Context, match string) ([]Entry[T], error) {
	all, err := t.all(ctx, match)
	if err != nil {
		return nil, err
	}
	out := make([]Entry[T], len(all))
	for i, e := range all {
		v, err := Decode[T](e.Value())
		if err != nil {
			return nil, fmt.Errorf("reading %s %s: %w", t.bucket, e.Key(), err)
		}
		out[i] = Entry[T]{e.Key(), v, e.Revision()}
	}
	return out, nil
}

// Keys returns the keys that match as List has it, in the order of their last change, without reading the records.
func (t *Table[T]) Keys(ctx context.Context, match string) ([]string, error) {
	all, err := t.all(ctx, match, jetstream.MetaOnly())
	if err != nil {
		return nil, err
	}
	out := make([]string, len(all))
	for i, e := range all {
		out[i] = e.Key()
	}
	return out, nil
}

// Watch calls fn with what exists and matches, then with one event that has Synced set, then with every change, in order, until ctx
// ends, and returns nil then. By the Synced event, all that was stored when Watch was called has been told. fn runs on the caller's goroutine.
// A record that cannot be read is logged and left out.
func (t *Table[T]) Watch(ctx context.Context, match string, fn func(Event[T])) error {
	// before has what was told until then, which may go again meanwhile.
	before := map[string]bool{}
	return t.view(ctx, "watching", match, func(e jetstream.KeyValueEntry) bool {
		if e == nil {
			before = nil
			fn(Event[T]{Synced: true})
			return true
		}
		ev := Event[T]{Entry: Entry[T]{Key: e.Key(), Revision: e.Revision()}}
		if e.Operation() != jetstream.KeyValuePut {
			if ev.Deleted = true; before == nil || before[ev.Key] {
				fn(ev)
			}
			return true
		}
		if before != nil {
			before[ev.Key] = true
		}
		var err error
		if ev.Value, err = Decode[T](e.Value()); err != nil {
			t.bus.log.Error("a record cannot be read", "bucket", t.bucket, "key", e.Key(), "err", err)
			return true
		}
		fn(ev)
		return true
	})
}

// Sync returns when what was written to the table before the call is on disk.
func (t *Table[T]) Sync(ctx context.Context) error { return t.bus.Barrier(ctx, t.Stream()) }

func (t *Table[T]) fail(err error, doing, key string) error {
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound), errors.Is(err, jetstream.ErrKeyDeleted):
		return fault.New(t.missing, "there is no %s in %s", key, t.bucket)
	case IsConflict(err):
		return fault.New(fault.CodeConflict, "%s in %s was changed meanwhile", key, t.bucket).WithHint("try again")
	}
	return t.bus.storeFault(err, doing+" "+t.bucket+" "+key)
}

// IsConflict reports whether the server stored nothing because a sequence was not the one that was expected.
func IsConflict(err error) bool {
	if err == nil {
		return false
	}
	if errors.Is(err, jetstream.ErrKeyExists) {
		return true
	}
	var api *jetstream.APIError
	if !errors.As(err, &api) {
		return false
	}
	switch api.ErrorCode {
	// A stream with copies says it otherwise while another message of the subject is on its way to them.
	case jetstream.JSErrCodeStreamWrongLastSequence, jetstream.JSErrCodeStreamWrongLastSequenceConstant:
		return true
	}
	return false
}
