package bus

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tatami-faas/tatami/internal/fault"
)

func openStore(t *testing.T) *Bus {
	t.Helper()
	b, err := Open(t.Context(), Config{DataDir: t.TempDir()}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close(context.Background()) })
	return b
}

func TestStoredAs(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]uint64{
		`{"stream":"INV", "seq":12}`:                                     12,
		`{"stream":"INV","seq":7,"duplicate": true}`:                     7,
		`{"stream":"INV","domain":"x","seq":18446744073709551615}`:       18446744073709551615,
		`{"error":{"code":400,"err_code":10071},"stream":"INV","seq":0}`: 0,
		`{"stream":"INV","seq":0}`:                                       0,
		`{"stream":"INV"}`:                                               0,
		`{"stream":"INV","seq":1`:                                        0,
		``:                                                               0,
		`{"stream":"INV","seq":-1}`:                                      0,
	} {
		if got, ok := storedAs([]byte(text)); got != want || ok != (want > 0) {
			t.Errorf("%s: %d, %v", text, got, ok)
		}
	}
}

// Store gives what the client's own call gives: the sequence, and its errors.
func TestStore(t *testing.T) {
	t.Parallel()
	b := openStore(t)
	msg := func(header nats.Header) *nats.Msg {
		return &nats.Msg{Subject: "inv.aaaaaaaaaa.x", Data: []byte("{}"), Header: header}
	}
	first, err := b.Store(t.Context(), msg(nats.Header{jetstream.MsgIDHeader: {"one"}}))
	if err != nil || first == 0 {
		t.Fatal(first, err)
	}
	if again, err := b.Store(t.Context(), msg(nats.Header{jetstream.MsgIDHeader: {"one"}})); err != nil || again != first {
		t.Errorf("a second try: %d, %v", again, err)
	}
	if _, err := b.Store(t.Context(), msg(nats.Header{jetstream.ExpectedLastSubjSeqHeader: {"0"}})); !IsConflict(err) {
		t.Errorf("a conflict: %v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Store(gone, msg(nats.Header{})); !errors.Is(err, context.Canceled) {
		t.Errorf("a context that ended: %v", err)
	}
	if _, err := b.Store(t.Context(), &nats.Msg{Subject: "nobody.stores.this"}); !errors.Is(err, jetstream.ErrNoStreamResponse) {
		t.Errorf("no stream: %v", err)
	}
}

// A key that was deleted can be made again, whichever way it is made.
func TestCreateAfterDelete(t *testing.T) {
	t.Parallel()
	b := openStore(t)
	for _, key := range []string{"plain", "with.dots"} {
		type record struct{ Schema, N int }
		table := newTable[record](b, BucketQuotas, fault.CodeNotFound)
		rev, err := table.Create(t.Context(), key, record{1, 1})
		if err != nil || rev == 0 {
			t.Fatal(rev, err)
		}
		if _, err := table.Create(t.Context(), key, record{1, 2}); !fault.Is(err, fault.CodeConflict) {
			t.Errorf("%s: a second one: %v", key, err)
		}
		if err := table.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		if _, err := table.Create(t.Context(), key, record{1, 3}); err != nil {
			t.Errorf("%s: after its deletion: %v", key, err)
		}
		if got, _, err := table.Get(t.Context(), key); err != nil || got.N != 3 {
			t.Errorf("%s: %+v, %v", key, got, err)
		}
	}
}
