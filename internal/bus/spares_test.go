package bus

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tatami-faas/tatami/internal/fault"
)

// spareBench is a stream's directory with second names.
type spareBench struct {
	t                *testing.T
	root, dir, block string
	s                *spares
}

func newSpareBench(t *testing.T) *spareBench {
	t.Helper()
	x := &spareBench{t: t, root: filepath.Join(t.TempDir(), "streams"), dir: filepath.Join(t.TempDir(), "spares")}
	x.block = filepath.Join(x.root, "A", "msgs", "1.blk")
	if err := os.MkdirAll(filepath.Dir(x.block), 0o700); err != nil {
		t.Fatal(err)
	}
	x.write("1.blk", "old")
	var err error
	if x.s, err = newSpares(x.root, x.dir, layout{Streams: []jetstream.StreamConfig{{Name: "A"}}}, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	return x
}

func (x *spareBench) write(name, content string) {
	x.t.Helper()
	if err := os.WriteFile(filepath.Join(filepath.Dir(x.block), name), []byte(content), 0o600); err != nil {
		x.t.Fatal(err)
	}
}

// replace puts another file in the place of the block's.
func (x *spareBench) replace(content string) {
	x.t.Helper()
	x.write("1.new", content)
	if err := os.Rename(filepath.Join(filepath.Dir(x.block), "1.new"), x.block); err != nil {
		x.t.Fatal(err)
	}
}

func (x *spareBench) restart() {
	x.t.Helper()
	if err := restoreSpares(x.root, x.dir, x.s.latest, slog.New(slog.DiscardHandler)); err != nil {
		x.t.Fatal(err)
	}
}

func (x *spareBench) look() {
	x.t.Helper()
	clear(x.s.seen)
	if err := x.s.look(); err != nil {
		x.t.Fatal(err)
	}
}

func (x *spareBench) has(path, want string) {
	x.t.Helper()
	if got, err := os.ReadFile(path); string(got) != want {
		x.t.Errorf("%s has %q, want %q: %v", path, got, want, err)
	}
}

func TestAReplacedBlockIsPutBack(t *testing.T) {
	t.Parallel()
	x := newSpareBench(t)
	x.write("index.db", "what the server knows of the new one")
	x.replace("new")
	x.restart()
	x.has(x.block, "old")
	x.has(filepath.Join(filepath.Dir(x.block), "index.db"), "")
	// What is on disk is not put back.
	x.replace("new")
	x.look()
	x.restart()
	x.has(x.block, "new")
	x.has(filepath.Join(x.dir, "A", "1.blk"), "new")
	// So is what a barrier has seen, and what was replaced since comes back to that.
	x.replace("newer")
	if err := x.s.keep(x.block, ".barrier"); err != nil {
		t.Fatal(err)
	}
	x.replace("newest")
	x.restart()
	x.has(x.block, "newer")
}

func TestAnEmptyBlockLeavesNoSpare(t *testing.T) {
	t.Parallel()
	x := newSpareBench(t)
	if err := os.Remove(x.block); err != nil {
		t.Fatal(err)
	}
	x.restart()
	x.has(x.block, "")
	x.look()
	x.has(filepath.Join(x.dir, "A", "1.blk"), "")
	if err := x.s.keep(x.block, ".barrier"); err != nil {
		t.Errorf("a block that is gone: %v", err)
	}
}

// Of a stream that holds one message of a subject, a block that is gone is put back until what took the place of its messages is on disk.
func TestABlockThatIsGoneIsPutBack(t *testing.T) {
	t.Parallel()
	x := newSpareBench(t)
	x.s.latest["A"] = true
	broken := errors.New("no disk")
	var asked []string
	x.s.durable = func(stream string) error { asked = append(asked, stream); return broken }
	remove := func() {
		t.Helper()
		if err := os.Remove(x.block); err != nil {
			t.Fatal(err)
		}
	}
	remove()
	x.write("index.db", "what the server knows")
	x.restart()
	x.has(x.block, "old")
	x.has(filepath.Join(filepath.Dir(x.block), "index.db"), "")
	remove()
	if err := x.s.look(); !errors.Is(err, broken) {
		t.Errorf("what is not on disk is taken for done with: %v", err)
	}
	x.restart()
	x.has(x.block, "old")
	remove()
	broken = nil
	x.look()
	x.restart()
	x.has(x.block, "")
	x.has(filepath.Join(x.dir, "A", "1.blk"), "")
	if want := []string{"A", "A"}; !slices.Equal(asked, want) {
		t.Errorf("the disk was waited for with %v, want %v", asked, want)
	}
}

// Whoever is refused for lack of room has the second names of what is gone go at once.
func TestARefusalForLackOfRoomHastensTheSpares(t *testing.T) {
	t.Parallel()
	x := newSpareBench(t)
	x.s.every = time.Hour
	x.s.watch(func(string) error { return nil })
	defer x.s.close()
	b := openStore(t)
	own := b.spares
	defer func() { b.spares = own }()
	b.spares = x.s
	if err := b.Room(); err != nil {
		t.Fatal(err)
	}
	b.cfg.ReserveBytes = 1 << 60
	b.room.checked = time.Time{}
	if err := os.Remove(x.block); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; {
		if err := b.Room(); !fault.Is(err, fault.CodeStorageFull) {
			t.Fatalf("a full disk: %v", err)
		}
		_, err := os.Stat(filepath.Join(x.dir, "A", "1.blk"))
		if errors.Is(err, fs.ErrNotExist) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the second name stays: %v", err)
		}
		time.Sleep(time.Millisecond)
	}
}

// Records are replaced by newer ones of their key, and nothing else in a stream is so.
func TestStreamsOfRecordsHoldTheNewest(t *testing.T) {
	t.Parallel()
	l := layoutOf(Config{}.withDefaults())
	for _, name := range l.names() {
		want := name == StreamKeys || strings.HasPrefix(name, "KV_")
		if l.latest()[name] != want {
			t.Errorf("%s holds the newest message of a subject only: %v", name, !want)
		}
	}
}

// A barrier vouches for a block under both names, and what the server removed stays removed.
func TestABarrierGivesASecondName(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b, err := Open(t.Context(), Config{DataDir: dir}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Store(t.Context(), &nats.Msg{Subject: "inv.h.1", Data: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	if err := b.Barrier(t.Context(), StreamInvocations); err != nil {
		t.Fatal(err)
	}
	block, err := os.Stat(filepath.Join(b.cfg.streamsDir(), StreamInvocations, "msgs", "1.blk"))
	if err != nil {
		t.Fatal(err)
	}
	if spare, err := os.Stat(filepath.Join(dir, sparesDir, StreamInvocations, "1.blk")); err != nil || !os.SameFile(block, spare) {
		t.Errorf("the block has no second name: %v", err)
	}
	if err := b.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// A server that says nothing has not said that there is nothing.
func TestSilenceIsNoEnd(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, more, err := readBatch(ctx, make(chan *nats.Msg), 1, func(storedMessage) {}); err == nil {
		t.Errorf("more %v, no error", more)
	}
}
