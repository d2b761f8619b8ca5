package bus

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tatami-faas/tatami/internal/fault"
)

// recorder is a syncer that writes down what it is asked to sync.
type recorder struct {
	mu   sync.Mutex
	seen []string
	err  error
	// gate, where set, is received from before each sync of a file; begun is sent to.
	gate, begun chan struct{}
	// mute has it not tell which file it was.
	mute bool
}

func (r *recorder) file(path string) (string, error) {
	if r.gate != nil {
		r.begun <- struct{}{}
		<-r.gate
	}
	if err := r.note("file", path); err != nil || r.mute {
		return "", err
	}
	var st unix.Stat_t
	err := unix.Stat(path, &st)
	return strconv.FormatUint(st.Ino, 10), err
}

func (r *recorder) dir(path string) error { return r.note("dir", path) }

func (r *recorder) second(string) error { return nil }

func (r *recorder) note(kind, path string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	stream := filepath.Base(filepath.Dir(path))
	if kind == "file" {
		stream = filepath.Base(filepath.Dir(filepath.Dir(path)))
		if _, err := os.Stat(path); err != nil {
			return err
		}
	}
	r.seen = append(r.seen, kind+" "+stream+" "+filepath.Base(path))
	return r.err
}

func (r *recorder) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.seen
	r.seen = nil
	slices.Sort(out)
	return out
}

type bench struct {
	t    *testing.T
	root string
	rec  *recorder
	b    *barrier
}

func newBench(t *testing.T) *bench {
	t.Helper()
	root := t.TempDir()
	for _, s := range []string{"A", "B"} {
		if err := os.MkdirAll(filepath.Join(root, s, "msgs"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	rec := &recorder{}
	b := newBarrier(root, []string{"A", "B"}, rec, newFailure(), slog.New(slog.DiscardHandler))
	t.Cleanup(b.stop)
	return &bench{t, root, rec, b}
}

func (x *bench) make(stream string, n int) {
	x.t.Helper()
	if err := os.WriteFile(x.path(stream, n), []byte("x"), 0o600); err != nil {
		x.t.Fatal(err)
	}
}

func (x *bench) path(stream string, n int) string {
	return filepath.Join(x.root, stream, "msgs", fmt.Sprint(n)+".blk")
}

func (x *bench) barrier(streams ...string) {
	x.t.Helper()
	if err := x.b.wait(x.t.Context(), streams); err != nil {
		x.t.Fatal(err)
	}
}

func (x *bench) synced(want ...string) {
	x.t.Helper()
	slices.Sort(want)
	if got := x.rec.take(); !slices.Equal(got, want) {
		x.t.Errorf("synced %q, want %q", got, want)
	}
}

func TestBarrierSyncsWhatMayBeUnsyncedAndNothingElse(t *testing.T) {
	t.Parallel()
	x := newBench(t)
	x.barrier("A")
	x.synced()
	x.make("A", 1)
	x.make("B", 1)
	x.barrier("A")
	x.synced("dir A msgs", "file A 1.blk")
	x.barrier("A")
	x.synced("file A 1.blk")
	// The block that was newest may have been written until the next one was begun.
	x.make("A", 2)
	x.make("A", 3)
	x.make("A", 10)
	x.barrier("A", "B")
	x.synced("dir A msgs", "dir B msgs", "file A 1.blk", "file A 10.blk", "file A 2.blk", "file A 3.blk", "file B 1.blk")
	x.barrier("A")
	x.synced("file A 10.blk")
	// Files that are no blocks are not messages.
	for _, name := range []string{"index.db", "11.blk.tmp", "x.blk"} {
		if err := os.WriteFile(filepath.Join(x.root, "A", "msgs", name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	x.barrier("A")
	x.synced("file A 10.blk")
	// The newest block is gone when all of it was acknowledged; the next one has a greater number.
	if err := os.Remove(x.path("A", 10)); err != nil {
		t.Fatal(err)
	}
	x.barrier("A")
	x.synced()
	x.make("A", 11)
	x.barrier("A")
	x.synced("dir A msgs", "file A 11.blk")
}

func TestBarrierSeesBlocksMadeAfterAQuietTime(t *testing.T) {
	t.Parallel()
	x := newBench(t)
	x.make("A", 1)
	x.barrier("A")
	// Past the time within which a directory's time of change proves nothing: the listing is kept from here on.
	time.Sleep(2 * settle)
	x.barrier("A")
	x.rec.take()
	for n := 2; n < 40; n++ {
		x.make("A", n)
		x.barrier("A")
		x.synced("dir A msgs", fmt.Sprintf("file A %d.blk", n-1), fmt.Sprintf("file A %d.blk", n))
		if n%10 == 0 {
			time.Sleep(2 * settle)
			x.barrier("A")
			x.synced(fmt.Sprintf("file A %d.blk", n))
			x.barrier("A")
			x.synced(fmt.Sprintf("file A %d.blk", n))
		}
	}
}

func TestBarrierSharesASyncAndComesAfterTheCall(t *testing.T) {
	t.Parallel()
	x := newBench(t)
	x.rec.gate, x.rec.begun = make(chan struct{}), make(chan struct{}, 10)
	x.make("A", 1)
	first := make(chan error, 1)
	go func() { first <- x.b.wait(context.Background(), []string{"A"}) }()
	<-x.rec.begun
	// These come during a sync that may have passed over what they wrote.
	const n = 20
	rest := make(chan error, n)
	for range n {
		go func() { rest <- x.b.wait(context.Background(), []string{"A"}) }()
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		x.b.mu.Lock()
		waiting := x.b.next.callers
		x.b.mu.Unlock()
		if waiting >= n {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d wait", waiting)
		}
	}
	x.rec.gate <- struct{}{}
	if err := <-first; err != nil {
		t.Fatal(err)
	}
	select {
	case <-x.rec.begun:
	case <-rest:
		t.Fatal("a caller returned without a sync that began after its call")
	}
	select {
	case <-rest:
		t.Fatal("a caller returned before a sync that began after its call")
	default:
	}
	x.rec.gate <- struct{}{}
	for range n {
		if err := <-rest; err != nil {
			t.Fatal(err)
		}
	}
	x.synced("dir A msgs", "file A 1.blk", "file A 1.blk")
}

// Who does not wait is called once, after a sync that began after the call.
func TestBarrierThen(t *testing.T) {
	t.Parallel()
	x := newBench(t)
	x.rec.gate, x.rec.begun = make(chan struct{}), make(chan struct{}, 10)
	x.make("A", 1)
	x.make("B", 1)
	first, second := make(chan error, 2), make(chan error, 2)
	x.b.then(func(err error) { first <- err }, []string{"A"})
	<-x.rec.begun
	x.b.then(func(err error) { second <- err }, []string{"B"})
	x.rec.gate <- struct{}{}
	if err := <-first; err != nil {
		t.Fatal(err)
	}
	<-x.rec.begun
	select {
	case <-second:
		t.Fatal("told before the sync that began after the call")
	default:
	}
	x.rec.gate <- struct{}{}
	if err := <-second; err != nil {
		t.Fatal(err)
	}
	x.synced("dir A msgs", "dir B msgs", "file A 1.blk", "file B 1.blk")
	x.b.then(func(err error) { first <- err }, []string{"C"})
	if err := <-first; err == nil {
		t.Error("a stream that is not known")
	}
	// The first failure is told to those who share the sync, and to all that come later.
	x.rec.mu.Lock()
	x.rec.err = errors.New("input/output error")
	x.rec.mu.Unlock()
	x.b.then(func(err error) { first <- err }, []string{"A"})
	x.rec.gate <- struct{}{}
	if err := <-first; !fault.Is(err, fault.CodeUnavailable) {
		t.Errorf("a sync that failed: %v", err)
	}
	x.b.then(func(err error) { second <- err }, []string{"A"})
	if err := <-second; !fault.Is(err, fault.CodeUnavailable) {
		t.Errorf("after it: %v", err)
	}
	if len(first)+len(second) > 0 {
		t.Error("told twice")
	}
}

func TestAFailedSyncIsTheEnd(t *testing.T) {
	t.Parallel()
	x := newBench(t)
	x.make("A", 1)
	x.rec.err = errors.New("input/output error")
	err := x.b.wait(t.Context(), []string{"A"})
	if !fault.Is(err, fault.CodeUnavailable) {
		t.Fatalf("got %v", err)
	}
	select {
	case <-x.b.failure.ch:
	default:
		t.Fatal("nobody is told")
	}
	x.rec.err = nil
	if err := x.b.wait(t.Context(), []string{"A"}); !fault.Is(err, fault.CodeUnavailable) {
		t.Fatalf("a later barrier: %v", err)
	}
	if err := x.b.wait(t.Context(), []string{"B"}); !fault.Is(err, fault.CodeUnavailable) {
		t.Fatalf("a later barrier over another stream: %v", err)
	}
}

func TestBarrierRefusesWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	x := newBench(t)
	if err := x.b.wait(t.Context(), []string{"C"}); err == nil {
		t.Error("a stream that is not there was synced")
	}
	x.b.stop()
	if err := x.b.wait(t.Context(), []string{"A"}); !fault.Is(err, fault.CodeUnavailable) {
		t.Errorf("after the end: %v", err)
	}
}

func TestTheFilesOfARealSyncAreOpenedByPath(t *testing.T) {
	t.Parallel()
	s := fileSyncer{}
	dir := t.TempDir()
	path := filepath.Join(dir, "1.blk")
	if _, err := s.file(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is gone: %v", err)
	}
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	first, err := s.file(path)
	if err := errors.Join(err, s.dir(dir), syncFilesystem(dir)); err != nil {
		t.Error(err)
	}
	if again, err := s.file(path); err != nil || again != first {
		t.Errorf("the same file is %x and %x, %v", first, again, err)
	}
	// However often it is replaced, and whatever numbers the filesystem gives again.
	seen := map[string]bool{first: true}
	for range 20 {
		if err := errors.Join(os.WriteFile(path+".new", []byte("y"), 0o600), os.Rename(path+".new", path)); err != nil {
			t.Fatal(err)
		}
		which, err := s.file(path)
		if err != nil || which != "" && seen[which] {
			t.Errorf("another file is %x again, %v", which, err)
		}
		seen[which] = true
	}
}

// A block whose file the server has replaced is on disk when the entry of the new one is.
func TestBarrierSyncsTheEntryOfAReplacedBlock(t *testing.T) {
	t.Parallel()
	x := newBench(t)
	x.make("A", 1)
	x.barrier("A")
	x.barrier("A")
	x.synced("dir A msgs", "file A 1.blk", "file A 1.blk")
	replace := func(n int) {
		t.Helper()
		x.make("A", 99)
		if err := os.Rename(x.path("A", 99), x.path("A", n)); err != nil {
			t.Fatal(err)
		}
	}
	replace(1)
	x.barrier("A")
	x.synced("dir A msgs", "file A 1.blk")
	x.barrier("A")
	x.synced("file A 1.blk")
	// The one that was newest is replaced when the next one is there.
	x.make("A", 2)
	replace(1)
	x.barrier("A")
	x.synced("dir A msgs", "file A 1.blk", "file A 2.blk")
	x.barrier("A")
	x.synced("file A 2.blk")
	// Where the filesystem does not tell, it may always have been.
	x.rec.mute = true
	x.barrier("A")
	x.barrier("A")
	x.synced("dir A msgs", "dir A msgs", "file A 2.blk", "file A 2.blk")
}

func TestTheServersWriteErrorsAreTheEndToo(t *testing.T) {
	t.Parallel()
	for text, code := range map[string]fault.Code{
		"Filestore [INV] Critical write error: write 1.blk: no space left on device":            fault.CodeStorageFull,
		"JetStream stream 'TATAMI > INV' critical write error: write 1.blk: input/output error": fault.CodeUnavailable,
		"Slow consumer": "",
	} {
		if got := fault.CodeOf(writeFailure(text)); got != code {
			t.Errorf("%q: got %q, want %q", text, got, code)
		}
	}
	x := newBench(t)
	x.b.failure.set(writeFailure("critical write error: no space left"))
	if err := x.b.wait(t.Context(), []string{"A"}); !fault.Is(err, fault.CodeStorageFull) {
		t.Errorf("a barrier after it: %v", err)
	}
}
