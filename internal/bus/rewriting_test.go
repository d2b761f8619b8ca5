package bus

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sys/unix"
)

// What is written to a new file among the blocks is on disk when the write returns, until the file is a block; where the filesystem cannot do it, the
// bus says so.
func TestWhatIsRewrittenIsWrittenThrough(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.DiscardHandler)
	dir := t.TempDir()
	r, err := watchRewriting([]string{dir}, log)
	if errors.Is(err, fs.ErrInvalid) {
		b, err := Open(t.Context(), Config{DataDir: t.TempDir()}, log)
		if err != nil {
			t.Fatal(err)
		}
		if b.Durability() == "" {
			t.Error("nothing is said of what power loss may do")
		}
		if err := b.Close(t.Context()); err != nil {
			t.Error(err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.close)
	path := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"1.new", "1.blk"} {
		if err := os.WriteFile(path(name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	lose := func(name string) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); writesThrough(t, path(name)); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s is still written through", name)
			}
		}
	}
	lose("1.blk")
	if !writesThrough(t, path("1.new")) {
		t.Error("a file that is to replace a block is not written through")
	}
	if err := os.Rename(path("1.new"), path("1.blk")); err != nil {
		t.Fatal(err)
	}
	lose("1.blk")
	// What an earlier process left so is a block like any other.
	if err := setSyncUpdates(path("1.blk"), true); err != nil {
		t.Fatal(err)
	}
	again, err := watchRewriting([]string{dir}, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(again.close)
	if writesThrough(t, path("1.blk")) {
		t.Error("a block of an earlier process is written through")
	}
}

func writesThrough(t *testing.T, path string) bool {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	flags, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil {
		t.Fatal(err)
	}
	return flags&syncUpdates != 0
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
