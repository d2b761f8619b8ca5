//go:build linux

package containerd

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tatami-faas/tatami/runtime/attach"
)

// Sandboxes of our own making are no containers of containerd's: a keeper is the parent of their init, and files under RunDir tell what
// they are. Here is what is done with them otherwise than with containers.

// exitTime bounds the wait for the keeper's note of an end that has happened.
const exitTime = 2 * time.Second

// awaitEnd returns once the held process has ended: nil, or why it cannot tell.
func (b *box) awaitEnd(ctx context.Context) error {
	b.mu.Lock()
	process := b.process
	b.mu.Unlock()
	if process == nil {
		return os.ErrClosed
	}
	raw, err := process.SyscallConn()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = process.SetReadDeadline(time.Unix(1, 0)) })
	defer func() {
		if !stop() {
			_ = process.SetReadDeadline(time.Time{})
		}
	}()
	return raw.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return err == nil && n > 0
	})
}

// watchOwn closes Done when the process ends.
func (d *Driver) watchOwn(b *box) {
	d.background(func() {
		if err := b.awaitEnd(d.ctx); err != nil {
			// The driver closes, or the sandbox is being removed.
			return
		}
		b.end(d.ownExit(b.sid, b.keeper))
	})
}

// ownExit reads how a process ended that has ended; unknownExit where its keeper did not see it.
func (d *Driver) ownExit(sid, keeper string) int {
	for begun := time.Now(); ; time.Sleep(time.Millisecond) {
		raw, err := os.ReadFile(d.cfg.exit(sid))
		if err != nil {
			return unknownExit
		}
		if line, whole := strings.CutSuffix(string(raw), "\n"); whole {
			code, err := strconv.Atoi(line)
			if err != nil {
				return unknownExit
			}
			return code
		}
		if time.Since(begun) > exitTime || !d.keepers.alive(keeper) {
			return unknownExit
		}
	}
}

// keeperLost ends what a keeper watched: its output goes nowhere, and nobody would know how it ended.
func (d *Driver) keeperLost(path string) {
	d.mu.Lock()
	var orphans []*box
	for _, b := range d.boxes {
		if b.own && b.keeper == path {
			orphans = append(orphans, b)
		}
	}
	d.mu.Unlock()
	d.log.Error("the keeper of sandboxes has ended, and they with it", "path", path, "count", len(orphans))
	for _, b := range orphans {
		d.cgroup.kill(b.sid)
	}
	for _, p := range d.pools() {
		p.loseKept(path)
	}
}

// hasOwn reports whether functions run in sandboxes of our own making.
func (d *Driver) hasOwn() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, b := range d.boxes {
		if b.own {
			return true
		}
	}
	return false
}

// adoptOwn takes over the sandboxes of our own making that functions were attached to. One that waited for its function has no attachment,
// and goes with the sweep.
func (d *Driver) adoptOwn() error {
	entries, err := os.ReadDir(d.cfg.attachments())
	if err != nil {
		return err
	}
	for _, e := range entries {
		a, err := d.readAttachment(e.Name())
		if err != nil {
			d.log.Warn("a sandbox cannot be adopted: whose it is cannot be read", "inst", e.Name(), "err", err)
			continue
		}
		if a.Keeper == "" {
			// With its container, if that is there.
			continue
		}
		d.adoptAttached(e.Name(), a)
	}
	return nil
}

func (d *Driver) adoptAttached(sid string, a *attachment) {
	b := d.newBox(a.Instance, a.Artifact, a.Port)
	b.carry(sid)
	b.made, b.function, b.own, b.keeper = true, a.Process, true, a.Keeper
	b.info.Created, b.info.Record = a.Created, a.Record
	b.limit = a.Limit
	b.endBoost()
	d.mu.Lock()
	d.boxes[a.Instance] = b
	d.mu.Unlock()
	kept := d.keepers.join(a.Keeper)
	d.awaitFunction(sid)
	// The number is the process's own only if it still is the sandbox's after we have taken hold of it.
	if pid := d.initOf(sid); pid != 0 && kept == nil && b.hold(pid) == nil && d.initOf(sid) == pid {
		b.ids = d.ids.claim(pid)
		d.watchOwn(b)
		d.log.Info("sandbox adopted", "inst", a.Instance, "pid", pid)
		return
	}
	if kept != nil {
		d.log.Warn("the keeper of a sandbox has ended", "inst", a.Instance, "err", kept)
		d.cgroup.kill(sid)
	}
	b.release()
	b.info.PID = 0
	code := d.ownExit(sid, a.Keeper)
	b.end(code)
	d.log.Info("sandbox of an earlier run has ended", "inst", a.Instance, "code", code)
}

// awaitFunction returns when the sandbox's first process, of an earlier run, is no init of ours: with nobody to tell it more, it becomes the function
// if it has been told to begin, and ends if not.
func (d *Driver) awaitFunction(sid string) {
	for begun := time.Now(); attach.IsInit(d.initOf(sid)); time.Sleep(time.Millisecond) {
		if time.Since(begun) > attachTime {
			d.cgroup.kill(sid)
			return
		}
	}
}

// endOwn ends the sandbox's processes, and returns when its first one is gone.
func (b *box) endOwn(ctx context.Context) error {
	b.d.cgroup.kill(b.sid)
	// One that is not in its cgroup yet.
	if err := b.signal(unix.SIGKILL); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, killTime)
	defer cancel()
	err := b.awaitEnd(ctx)
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// ownFiles are what the keeper writes to. They must be there before: what is removed it does not make again.
func (d *Driver) ownFiles(b *box) error {
	for _, f := range []string{b.info.Stdout, b.info.Stderr, d.cfg.exit(b.sid)} {
		if err := os.WriteFile(f, nil, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// poolRoot makes the root of all waiting sandboxes and returns its path. It holds the places of the mounts only.
func (d *Driver) poolRoot() (string, error) {
	root := d.cfg.poolRoot()
	dirs, files := points(mounts(""))
	for _, dir := range append(dirs, attach.NewRootDir, "/etc") {
		if err := os.MkdirAll(root+dir, 0o755); err != nil {
			return "", err
		}
	}
	for _, file := range files {
		if err := os.WriteFile(root+file, nil, 0o644); err != nil {
			return "", err
		}
	}
	return root, os.Chmod(root, 0o755)
}
