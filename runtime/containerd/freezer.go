//go:build linux

package containerd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tatami-faas/tatami/internal/fault"
)

// firstLook and lastLook are the pauses between two looks at whether a sandbox stands still, where the kernel does not tell.
const (
	firstLook = 50 * time.Microsecond
	lastLook  = 5 * time.Millisecond
)

// Freeze keeps the sandbox's processes from running.
func (b *box) Freeze(ctx context.Context) error {
	if b.gvisor {
		// Its processes are traced by gVisor, and one that is being traced may never stand still.
		return fault.New(fault.CodeUnavailable, "the sandbox %s cannot be frozen: it is gVisor's", b.info.ID)
	}
	err := b.d.cgroup.freeze(ctx, b.sid)
	if errors.Is(err, fs.ErrNotExist) {
		return fault.Wrap(fault.CodeUnavailable, err, "the sandbox %s cannot be frozen: it has no freezer", b.info.ID)
	}
	return err
}

// Thaw lets the sandbox's processes run.
func (b *box) Thaw() error { return b.d.cgroup.thaw(b.sid) }

// Reclaim takes back memory that the sandbox can get again.
func (b *box) Reclaim(context.Context) (int64, error) { return b.d.cgroup.reclaim(b.sid) }

// freezer is the sandbox's file that freezes it, with what is written to freeze and to thaw.
func (c *cgroups) freezer(id string) (dir, file, frozen, thawed string) {
	if c.v2 {
		return c.dir("", id), "cgroup.freeze", "1", "0"
	}
	return c.dir("freezer", id), "freezer.state", "FROZEN", "THAWED"
}

// freeze returns once every process of the sandbox stands still. The OCI runtime would take ten times as long.
func (c *cgroups) freeze(ctx context.Context, id string) error {
	dir, file, frozen, _ := c.freezer(id)
	if c.v2 {
		return c.freezeAndHear(ctx, dir, file, frozen)
	}
	if err := write(dir, file, frozen); err != nil {
		return err
	}
	// This version tells nobody: FREEZING becomes FROZEN when somebody looks.
	for pause := firstLook; ; pause = min(2*pause, lastLook) {
		now, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil || strings.TrimSpace(string(now)) == frozen {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// freezeAndHear freezes and waits for the kernel's word, which is a change of the file of events.
func (c *cgroups) freezeAndHear(ctx context.Context, dir, file, frozen string) error {
	const events = "cgroup.events"
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("inotify_init1", err)
	}
	changes := os.NewFile(uintptr(fd), "changes")
	defer changes.Close()
	if _, err := unix.InotifyAddWatch(fd, filepath.Join(dir, events), unix.IN_MODIFY); err != nil {
		return &fs.PathError{Op: "watch", Path: filepath.Join(dir, events), Err: err}
	}
	defer context.AfterFunc(ctx, func() { _ = changes.SetReadDeadline(time.Unix(1, 0)) })()
	if err := write(dir, file, frozen); err != nil {
		return err
	}
	for b := make([]byte, 16*unix.SizeofInotifyEvent); ; {
		now, err := keyed(dir, events)
		if err != nil || now["frozen"] == 1 {
			return err
		}
		if _, err := changes.Read(b); err != nil {
			return errors.Join(ctx.Err(), err)
		}
	}
}

// thaw lets a frozen sandbox run: on v1 even SIGKILL waits for it.
func (c *cgroups) thaw(id string) error {
	dir, file, _, thawed := c.freezer(id)
	if err := write(dir, file, thawed); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENODEV) {
		return err
	}
	return nil
}

// reclaim asks for everything that the sandbox holds and returns what it was given.
func (c *cgroups) reclaim(id string) (int64, error) {
	if !c.v2 {
		return 0, fmt.Errorf("memory cannot be reclaimed with cgroup v1: %w", errors.ErrUnsupported)
	}
	dir := c.dir("memory", id)
	before, err := number(dir, "memory.current")
	if err != nil {
		return 0, err
	}
	// The kernel gives what it can, and says EAGAIN where that is less.
	if err := write(dir, "memory.reclaim", strconv.FormatInt(before, 10)); errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("this kernel has no memory.reclaim: %w", errors.ErrUnsupported)
	} else if err != nil && !errors.Is(err, syscall.EAGAIN) {
		return 0, err
	}
	after, err := number(dir, "memory.current")
	return max(0, before-after), err
}
