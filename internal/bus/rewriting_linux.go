package bus

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// rewriting has what the server writes anew on disk before it takes the place of what it replaces.
//
// The server compacts a block by writing what is left of it to a new file, which it renames over the old one without a sync. On ext4 as it is mounted
// by default (dioread_nolock) the new name may be on disk before the content is, whatever auto_da_alloc begins: power loss leaves zeros then where
// messages of any age were, that barriers had passed. So the directories of the blocks have the attribute of synchronous updates (chattr +S), which the
// files that are made in them inherit: a write to such a file returns when it is on disk. Files that are appended to lose the attribute as soon as they
// are there, for their syncs are the barrier's: that this takes a moment costs time, and no message.
type rewriting struct {
	events *os.File
	// dirs are the watched directories, by the watch's number.
	dirs map[int32]string
	log  *slog.Logger
	done chan struct{}
}

// syncUpdates is FS_SYNC_FL.
const syncUpdates = 0x8

// watchRewriting begins; close ends it. The error is fs.ErrInvalid where the filesystem has no such attribute.
func watchRewriting(dirs []string, log *slog.Logger) (*rewriting, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watching the blocks: %w", err)
	}
	r := &rewriting{events: os.NewFile(uintptr(fd), "inotify"), dirs: map[int32]string{}, log: log, done: make(chan struct{})}
	for _, dir := range dirs {
		if err := r.add(fd, dir); err != nil {
			_ = r.events.Close()
			return nil, err
		}
	}
	go r.run()
	return r, nil
}

// add gives the attribute to a directory, whose newest blocks may have it from an earlier process.
func (r *rewriting) add(fd int, dir string) error {
	watch, err := unix.InotifyAddWatch(fd, dir, unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_ONLYDIR)
	if err != nil {
		return &os.PathError{Op: "watch", Path: dir, Err: err}
	}
	r.dirs[int32(watch)] = dir //nolint:gosec // the kernel's numbers are of this size
	if err := setSyncUpdates(dir, true); err != nil {
		return err
	}
	found, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range found {
		if err := r.made(dir, e.Name()); err != nil {
			return err
		}
	}
	return nil
}

// made takes the attribute from a block.
func (r *rewriting) made(dir, name string) error {
	if !strings.HasSuffix(name, ".blk") {
		return nil
	}
	err := setSyncUpdates(filepath.Join(dir, name), false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (r *rewriting) run() {
	defer close(r.done)
	buf := make([]byte, 16<<10)
	for {
		n, err := r.events.Read(buf)
		if err != nil {
			if !errors.Is(err, os.ErrClosed) {
				r.log.Error("blocks are not watched any more, new ones are slow", "err", err)
			}
			return
		}
		for b := buf[:n]; len(b) >= unix.SizeofInotifyEvent; {
			watch, length := int32(binary.NativeEndian.Uint32(b)), int(binary.NativeEndian.Uint32(b[12:])) //nolint:gosec // of this size, too
			end := unix.SizeofInotifyEvent + length
			name := string(bytes.TrimRight(b[unix.SizeofInotifyEvent:end], "\x00"))
			b = b[end:]
			if err := r.made(r.dirs[watch], name); err != nil {
				r.log.Warn("a block stays slow", "file", name, "err", err)
			}
		}
	}
}

func (r *rewriting) close() {
	if r == nil {
		return
	}
	_ = r.events.Close()
	<-r.done
}

// setSyncUpdates gives a file or directory the attribute or takes it away.
func setSyncUpdates(path string, want bool) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	flags, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	if err != nil {
		return noAttribute(path, err)
	}
	had := flags&syncUpdates != 0
	if had == want {
		return nil
	}
	if err := unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(flags^syncUpdates)); err != nil {
		return noAttribute(path, err)
	}
	return nil
}

func noAttribute(path string, err error) error {
	if errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) {
		err = fmt.Errorf("%w: %w", fs.ErrInvalid, err)
	}
	return &os.PathError{Op: "set attributes", Path: path, Err: err}
}
