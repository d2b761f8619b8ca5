package bus_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

func open(t *testing.T, cfg bus.Config) *bus.Bus {
	t.Helper()
	if cfg.DataDir == "" {
		cfg.DataDir = t.TempDir()
	}
	b, err := bus.Open(t.Context(), cfg, slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close(t.Context()) })
	return b
}

func wantCode(t *testing.T, err error, code fault.Code) {
	t.Helper()
	if fault.CodeOf(err) != code {
		t.Fatalf("got error %v with code %q, want code %q", err, fault.CodeOf(err), code)
	}
}

func TestWhatWasWrittenIsThereAfterAReopen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := open(t, bus.Config{DataDir: dir})
	id := b.Identity()
	f := functions.Function{Schema: 1, Namespace: "default", Name: "hello"}
	key := bus.FunctionKey(f.Ref())
	rev, err := b.Functions().Create(t.Context(), key, f)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Functions().Create(t.Context(), key, f); !fault.Is(err, fault.CodeConflict) {
		t.Fatalf("a second create: %v", err)
	}
	if _, err := b.Bodies().Put(t.Context(), "a/request", strings.NewReader(strings.Repeat("x", 1<<20))); err != nil {
		t.Fatal(err)
	}
	if err := b.Functions().Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.Barrier(t.Context(), bus.StreamInvocations, b.Bodies().Stream(), b.Results().Stream()); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	b = open(t, bus.Config{DataDir: dir})
	if b.Identity() != id {
		t.Fatalf("identity %+v, want %+v", b.Identity(), id)
	}
	got, r, err := b.Functions().Get(t.Context(), key)
	if err != nil || got.Name != "hello" || r != rev {
		t.Fatalf("got %+v, revision %d, error %v", got, r, err)
	}
	f.Generation = 2
	if _, err := b.Functions().Update(t.Context(), key, f, rev+7); !fault.Is(err, fault.CodeConflict) {
		t.Fatalf("an update of another revision: %v", err)
	}
	if _, err := b.Functions().Update(t.Context(), key, f, rev); err != nil {
		t.Fatal(err)
	}
	o, size, err := b.Bodies().Open(t.Context(), "a/request")
	if err != nil || size != 1<<20 {
		t.Fatalf("size %d, error %v", size, err)
	}
	if data, err := io.ReadAll(o); err != nil || len(data) != 1<<20 {
		t.Fatalf("read %d bytes, error %v", len(data), err)
	}
	_ = o.Close()
	_, _, err = b.Bodies().Open(t.Context(), "b/request")
	wantCode(t, err, fault.CodeNotFound)
	_, _, err = b.Functions().Get(t.Context(), "default.gone")
	wantCode(t, err, fault.CodeFunctionNotFound)
}

func TestSourceErrorsOfAnObjectComeBackAsTheyAre(t *testing.T) {
	t.Parallel()
	b := open(t, bus.Config{})
	mine := errors.New("mine")
	_, err := b.Bodies().Put(t.Context(), "x", io.MultiReader(strings.NewReader("begin"), failing{mine}))
	if !errors.Is(err, mine) {
		t.Fatalf("got %v", err)
	}
	if has, err := b.Bodies().Has(t.Context(), "x"); err != nil || has {
		t.Fatalf("the object exists: %v, error %v", has, err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// The barrier rests on this: an acknowledged message has been written to its block file. A server that buffers writes breaks it.
func TestTheServerWritesAMessageBeforeItAcknowledges(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := open(t, bus.Config{DataDir: dir})
	ref := functions.Ref{Namespace: "default", Name: "hello"}
	holds := func(stream, text string) bool {
		t.Helper()
		files, err := filepath.Glob(filepath.Join(dir, "jetstream", bus.AccountTatami, "streams", stream, "msgs", "*.blk"))
		if err != nil || len(files) == 0 {
			t.Fatalf("stream %s has no block files; error %v", stream, err)
		}
		for _, f := range files {
			data, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(data, []byte(text)) {
				return true
			}
		}
		return false
	}
	for i := range 300 {
		id := functions.NewInvocationID(ref)
		subject, _ := bus.InvocationSubject(id)
		text := fmt.Sprintf("payload %d of %s", i, id)
		if _, err := b.JetStream().Publish(t.Context(), subject, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if !holds(bus.StreamInvocations, text) {
			t.Fatalf("message %d is acknowledged and not in a file", i)
		}
		if _, err := b.Results().Create(t.Context(), bus.ResultKey(id), functions.Result{Schema: 1, ID: id}); err != nil {
			t.Fatal(err)
		}
		if !holds(b.Results().Stream(), string(id)) {
			t.Fatalf("result %d is acknowledged and not in a file", i)
		}
	}
	if _, err := b.Bodies().Put(t.Context(), "x/request", strings.NewReader("the body's own text")); err != nil {
		t.Fatal(err)
	}
	if !holds(b.Bodies().Stream(), "the body's own text") {
		t.Fatal("an object is acknowledged and not in a file")
	}
}

func TestADataDirectoryHasOneProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open(t, bus.Config{DataDir: dir})
	_, err := bus.Open(t.Context(), bus.Config{DataDir: dir}, discard())
	wantCode(t, err, fault.CodeConflict)
	if f := fault.From(err); !strings.Contains(f.Message, fmt.Sprintf("process %d", os.Getpid())) || f.Hint == "" {
		t.Errorf("the error helps nobody: %+v", f)
	}
}

// A process that was just killed may hold its directory for a moment.
func TestADirectoryThatIsBeingGivenUpIsAwaited(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := open(t, bus.Config{DataDir: dir})
	time.AfterFunc(100*time.Millisecond, func() { _ = first.Close(context.Background()) })
	second, err := bus.Open(t.Context(), bus.Config{DataDir: dir}, discard())
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestAFullStoreSaysSo(t *testing.T) {
	t.Parallel()
	b := open(t, bus.Config{DataDir: t.TempDir(), MaxStore: 16 << 20})
	if err := b.Room(); err != nil {
		t.Fatal(err)
	}
	// The reserve is refused to new work and given to what was accepted.
	var err error
	for i := range 100 {
		if _, err = b.Bodies().Put(t.Context(), fmt.Sprintf("%d/request", i), bytes.NewReader(make([]byte, 1<<20))); err != nil {
			break
		}
	}
	wantCode(t, err, fault.CodeStorageFull)
	wantCode(t, b.RoomFor(12<<20), fault.CodeStorageFull)
	wantCode(t, b.Room(), fault.CodeStorageFull)
	for i := range 8 {
		if err := b.Bodies().Delete(t.Context(), fmt.Sprintf("%d/request", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.RoomFor(1 << 20); err != nil {
		t.Fatalf("with space again: %v", err)
	}
	wantCode(t, b.RoomFor(1<<30), fault.CodeStorageFull)
}

func TestAReserveOnTheDiskIsKept(t *testing.T) {
	t.Parallel()
	b := open(t, bus.Config{DataDir: t.TempDir(), ReserveBytes: 1 << 60})
	wantCode(t, b.Room(), fault.CodeStorageFull)
}

func TestANewerRecordIsRefused(t *testing.T) {
	t.Parallel()
	b := open(t, bus.Config{})
	if _, err := b.Functions().Put(t.Context(), "default.new", functions.Function{Schema: 2, Name: "new"}); err != nil {
		t.Fatal(err)
	}
	_, _, err := b.Functions().Get(t.Context(), "default.new")
	wantCode(t, err, fault.CodeConflict)
	if !strings.Contains(err.Error(), "schema 2") {
		t.Errorf("got %v", err)
	}
	for _, data := range []string{`{"schema":2,"name":"x"}`, `{"schema":9,"name":{"changed":true}}`} {
		if _, err := bus.Decode[functions.Function]([]byte(data)); !fault.Is(err, fault.CodeConflict) {
			t.Errorf("%s: %v", data, err)
		}
	}
	if _, err := bus.Decode[functions.Function]([]byte(`{"schema":1,"name":"x","unknown":1}`)); err != nil {
		t.Errorf("an unknown field of the same schema: %v", err)
	}
}

func TestWatchTellsWhatIsThereThenWhatChanges(t *testing.T) {
	t.Parallel()
	b := open(t, bus.Config{})
	q := b.Quotas()
	put := func(ns string, n int64) {
		t.Helper()
		if _, err := q.Put(t.Context(), ns, functions.Quota{Schema: 1, Namespace: ns, Instances: n}); err != nil {
			t.Fatal(err)
		}
	}
	put("a", 1)
	put("a", 2)
	put("gone", 1)
	if err := q.Delete(t.Context(), "gone"); err != nil {
		t.Fatal(err)
	}
	events := make(chan bus.Event[functions.Quota], 10)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- q.Watch(ctx, "", func(e bus.Event[functions.Quota]) { events <- e }) }()
	next := func() bus.Event[functions.Quota] {
		t.Helper()
		select {
		case e := <-events:
			return e
		case <-time.After(time.Minute):
			t.Fatal("no event")
			panic("unreachable")
		}
	}
	if e := next(); e.Key != "a" || e.Value.Instances != 2 || e.Deleted || e.Synced || e.Revision == 0 {
		t.Errorf("got %+v", e)
	}
	if e := next(); !e.Synced {
		t.Errorf("got %+v", e)
	}
	put("b", 3)
	if e := next(); e.Key != "b" || e.Value.Instances != 3 {
		t.Errorf("got %+v", e)
	}
	if err := q.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if e := next(); e.Key != "a" || !e.Deleted {
		t.Errorf("got %+v", e)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Watch: %v", err)
	}
	if l, err := q.List(t.Context(), ""); err != nil || len(l) != 1 || l[0].Key != "b" {
		t.Errorf("list %+v, error %v", l, err)
	}
	if l, err := q.Keys(t.Context(), ""); err != nil || len(l) != 1 || l[0] != "b" {
		t.Errorf("keys %+v, error %v", l, err)
	}
}

func TestResultsExpire(t *testing.T) {
	t.Parallel()
	b := open(t, bus.Config{ResultTTL: time.Second})
	if _, err := b.Results().Create(t.Context(), "inv_a", functions.Result{Schema: 1}); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		_, _, err := b.Results().Get(t.Context(), "inv_a")
		if fault.Is(err, fault.CodeInvocationNotFound) {
			return
		}
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("the result is still there; error %v", err)
		}
	}
}

// A watch that its caller gives up in the middle leaves nothing behind. The package's tests end with a look for such remains.
func TestWatchGivenUp(t *testing.T) {
	t.Parallel()
	b := open(t, bus.Config{})
	const records = 1200
	for i := range records {
		if _, err := b.Quotas().Put(t.Context(), fmt.Sprintf("ns%d", i), functions.Quota{Schema: 1, Namespace: fmt.Sprintf("ns%d", i)}); err != nil {
			t.Fatal(err)
		}
	}
	for range 10 {
		ctx, cancel := context.WithCancel(t.Context())
		if err := b.Quotas().Watch(ctx, "", func(bus.Event[functions.Quota]) { cancel() }); err != nil {
			t.Error(err)
		}
	}
	if got, err := b.Quotas().Keys(t.Context(), ""); err != nil || len(got) != records {
		t.Errorf("%d keys are listed: %v", len(got), err)
	}
}

// Two that listen at port 0 have two ports.
func TestPortZeroIsAFreeOne(t *testing.T) {
	t.Parallel()
	one, other := open(t, bus.Config{Listen: "127.0.0.1:0"}), open(t, bus.Config{Listen: "127.0.0.1:0"})
	if one.ListenURL() == other.ListenURL() {
		t.Errorf("both listen at %s", one.ListenURL())
	}
}
