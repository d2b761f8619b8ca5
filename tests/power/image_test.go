//go:build e2e

package power

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tatami-faas/tatami/gateway/queue"
	"github.com/tatami-faas/tatami/internal/bus"
)

const (
	// shutdown is EXT4_IOC_SHUTDOWN; noLogFlush leaves the journal as it is on disk.
	shutdown   = 0x8004587d
	noLogFlush = 2
)

// image is a filesystem in a file.
type image struct {
	t         *testing.T
	file, dir string
	options   string
	mounted   bool
}

// newImage makes one and mounts it with the filesystem's defaults and the options; it goes with the test.
func newImage(t *testing.T, mib int, options ...string) *image {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("the power-loss suite mounts a filesystem and needs root")
	}
	work := t.TempDir()
	im := &image{t: t, file: filepath.Join(work, "disk.img"), dir: filepath.Join(work, "disk"),
		options: strings.Join(append([]string{"loop"}, options...), ",")}
	f, err := os.Create(im.file)
	if err == nil {
		err = errors.Join(f.Truncate(int64(mib)<<20), f.Close(), os.Mkdir(im.dir, 0o700))
	}
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", im.file).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4 (apt-get install e2fsprogs): %v %s", err, out)
	}
	t.Cleanup(func() {
		if im.mounted {
			im.unmount()
		}
	})
	im.mount()
	return im
}

func (im *image) mount() {
	im.t.Helper()
	if out, err := exec.Command("mount", "-o", im.options, im.file, im.dir).CombinedOutput(); err != nil {
		im.t.Fatalf("mount: %v %s", err, out)
	}
	im.mounted = true
}

func (im *image) unmount() {
	im.t.Helper()
	if out, err := exec.Command("umount", im.dir).CombinedOutput(); err != nil {
		im.t.Errorf("umount: %v %s", err, out)
		return
	}
	im.mounted = false
}

// crash cuts the power while a store is open, and gives it back.
func (im *image) crash(b *bus.Bus) {
	im.cut()
	// It cannot write its last words.
	_ = b.Close(context.Background())
	im.unmount()
	im.mount()
}

// crashAtWork is crash while a queue works on what the store holds, until end. The stream is one that it syncs.
func (im *image) crashAtWork(b *bus.Bus, stream string, end func()) {
	im.t.Helper()
	im.cut()
	// It finds that the disk is gone, and waits for nothing more.
	if err := b.Barrier(im.t.Context(), stream); err == nil {
		im.t.Error("a sync succeeds without power")
	}
	end()
	_ = b.Close(context.Background())
	im.unmount()
	im.mount()
}

// work has a queue work until end, which waits for it.
func work(q *queue.Queue) (end func()) {
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- q.Run(ctx) }()
	return func() {
		stop()
		<-done
	}
}

// cut takes the power: nothing is written any more, and what was not synced is lost with the next mount.
func (im *image) cut() {
	im.t.Helper()
	if err := takePower(im.dir); err != nil {
		im.t.Fatal(err)
	}
}

func takePower(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	how := uint32(noLogFlush)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, d.Fd(), shutdown, uintptr(unsafe.Pointer(&how))); errno != 0 {
		return fmt.Errorf("EXT4_IOC_SHUTDOWN: %w", errno)
	}
	return nil
}

// The harness itself: without its promise, what follows would show nothing.
func TestACutLosesWhatIsNotSynced(t *testing.T) {
	im := newImage(t, 32)
	write := func(name string, sync bool) {
		f, err := os.Create(filepath.Join(im.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.WriteString("content")
		if err == nil && sync {
			err = f.Sync()
		}
		if err = errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	write("synced", true)
	// The filesystem commits by itself every five seconds: not in the moment before the cut each time.
	for try := 1; ; try++ {
		write("unsynced", false)
		im.cut()
		im.unmount()
		im.mount()
		if got, err := os.ReadFile(filepath.Join(im.dir, "synced")); string(got) != "content" {
			t.Fatalf("a synced file is lost: %q, %v", got, err)
		}
		if got, _ := os.ReadFile(filepath.Join(im.dir, "unsynced")); string(got) != "content" {
			return
		}
		if try == 5 {
			t.Fatal("what was never synced outlives the cut")
		}
		if err := os.Remove(filepath.Join(im.dir, "unsynced")); err != nil {
			t.Fatal(err)
		}
	}
}
