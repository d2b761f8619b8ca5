package bus

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

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

// StoreThen gives what Store gives, to each its own.
func TestStoreThen(t *testing.T) {
	t.Parallel()
	b := openStore(t)
	type word struct {
		seq uint64
		err error
	}
	ask := func(m *nats.Msg) chan word {
		said := make(chan word, 2)
		b.StoreThen(m, func(seq uint64, err error) { said <- word{seq, err} })
		return said
	}
	const n = 500
	words := make([]chan word, n)
	for i := range words {
		words[i] = ask(&nats.Msg{Subject: "inv.aaaaaaaaaa." + strconv.Itoa(i), Data: []byte(strconv.Itoa(i)), Header: nats.Header{}})
	}
	for i, said := range words {
		w := <-said
		if w.err != nil {
			t.Fatal(w.err)
		}
		m, err := b.Invocations().GetMsg(t.Context(), w.seq)
		if err != nil || string(m.Data) != strconv.Itoa(i) {
			t.Fatalf("%d is not at %d: %v", i, w.seq, err)
		}
	}
	if w := <-ask(&nats.Msg{Subject: "inv.aaaaaaaaaa.7", Header: nats.Header{jetstream.ExpectedLastSubjSeqHeader: {"0"}}}); !IsConflict(w.err) {
		t.Errorf("a conflict: %v", w.err)
	}
	if w := <-ask(&nats.Msg{Subject: "nobody.stores.this"}); !errors.Is(w.err, jetstream.ErrNoStreamResponse) {
		t.Errorf("no stream: %v", w.err)
	}
	if w := <-ask(&nats.Msg{Subject: "inv.a", Data: make([]byte, 9<<20)}); !errors.Is(w.err, nats.ErrMaxPayload) {
		t.Errorf("too large: %v", w.err)
	}
	if err := b.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if w := <-ask(&nats.Msg{Subject: "inv.aaaaaaaaaa.x"}); !errors.Is(w.err, nats.ErrConnectionClosed) {
		t.Errorf("after the end: %v", w.err)
	}
}

// What the server never answers has an end all the same: when its time is over, and when the store is closed.
func TestStoreThenUnanswered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &later{waiting: map[uint64]promise{}, stop: make(chan struct{}), done: make(chan struct{})}
		go l.watch()
		said := make(chan error, 2)
		begun := time.Now()
		l.expect(nil, func(_ uint64, err error) { said <- err })
		if err := <-said; !errors.Is(err, errUnanswered) || time.Since(begun) < storeTimeout {
			t.Errorf("after %s: %v", time.Since(begun), err)
		}
		l.expect(nil, func(_ uint64, err error) { said <- err })
		l.close()
		if err := <-said; !errors.Is(err, nats.ErrConnectionClosed) {
			t.Errorf("at the end: %v", err)
		}
	})
}

// In a cluster what no stream takes yet is sent again, until one does or that has lasted for long enough.
func TestStoreThenAwaitsAnElection(t *testing.T) {
	t.Parallel()
	b := openStore(t)
	nc, err := b.Connect("test")
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	ask := func(patience time.Duration) (end func(), said chan error) {
		l, err := newLater(nc, patience)
		if err != nil {
			t.Fatal(err)
		}
		said = make(chan error, 2)
		l.store(&nats.Msg{Subject: "elected.late"}, func(seq uint64, err error) {
			if err == nil && seq != 7 {
				t.Errorf("it is stored at %d", seq)
			}
			said <- err
		})
		return l.close, said
	}
	end, said := ask(time.Nanosecond)
	if err := <-said; !errors.Is(err, jetstream.ErrNoStreamResponse) {
		t.Errorf("without patience: %v", err)
	}
	end()
	end, said = ask(time.Minute)
	defer end()
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	sub, err := nc.Subscribe("elected.late", func(m *nats.Msg) { _ = m.Respond([]byte(`{"stream":"X","seq":7}`)) })
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := <-said; err != nil {
		t.Errorf("with patience: %v", err)
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
