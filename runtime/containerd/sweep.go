//go:build linux

package containerd

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"golang.org/x/sys/unix"

	"github.com/tatami-faas/tatami/functions"
)

// sweep removes what carries an instance's id and has no container: a crash came between making the two, or between removing them. It
// runs before any sandbox is made.
func (d *Driver) sweep(ctx context.Context) {
	if d.engine != nil {
		d.sweepShims(ctx)
		d.sweepSockets()
		d.sweepBundles()
		d.sweepLeases(ctx)
	}
	d.sweepMounts()
	for _, id := range d.remains() {
		if err := d.removeRemains(id); err != nil {
			d.log.Warn("what a crash left of a sandbox cannot be removed", "inst", id, "err", err)
			continue
		}
		d.log.Info("removed what a crash left of a sandbox", "inst", id)
	}
}

// adoptLinks takes over the links of the sandboxes that were adopted, and removes those of others. Where there are some, more will be asked for.
func (d *Driver) adoptLinks() {
	d.mu.Lock()
	known := map[string]*pool{}
	for _, b := range d.boxes {
		known[b.sid] = d.pool
		if b.ids != 0 {
			known[b.sid] = d.mapped
		}
	}
	d.mu.Unlock()
	if err := d.egress.Adopt(func(owner string) bool { return known[owner] != nil }); err != nil {
		d.log.Warn("links of sandboxes with egress cannot be taken over or removed", "err", err)
	}
	for sid, p := range known {
		if d.egress.Holds(sid) {
			p.openLinks()
		}
	}
}

// remains lists the ids without a container that something carries.
func (d *Driver) remains() []string {
	ids := d.cgroup.children()
	add := func(dir string, id func(name string) string) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return
		}
		for _, e := range entries {
			ids = append(ids, id(e.Name()))
		}
	}
	whole := func(name string) string { return name }
	add(d.cfg.scratchRoot(), whole)
	add(filepath.Join(d.cfg.runcRoot(), namespace), whole)
	add(d.cfg.attachments(), whole)
	add(d.cfg.exits(), whole)
	add(d.cfg.logRoot(), func(name string) string { return strings.TrimSuffix(name, filepath.Ext(name)) })
	if d.engine != nil {
		add(d.cfg.bundleRoot(), whole)
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	d.mu.Lock()
	defer d.mu.Unlock()
	known := map[string]bool{}
	for _, b := range d.boxes {
		known[b.sid] = true
	}
	return slices.DeleteFunc(ids, func(id string) bool { return !functions.InstanceID(id).Valid() || known[id] })
}

// sweepMounts takes away what reading or unpacking an image had mounted, and the FIFOs of processes run inside sandboxes.
func (d *Driver) sweepMounts() {
	entries, err := os.ReadDir(d.cfg.mountRoot())
	if err != nil {
		return
	}
	for _, e := range entries {
		dir := filepath.Join(d.cfg.mountRoot(), e.Name())
		if err := unmount(dir); err != nil {
			d.log.Warn("a mount that a crash left cannot be removed", "path", dir, "err", err)
			continue
		}
		_ = os.Remove(dir)
	}
	if err := os.RemoveAll(d.cfg.fifoRoot()); err == nil {
		_ = os.MkdirAll(d.cfg.fifoRoot(), 0o700)
	}
}

// sweepLeases lets go of what an interrupted Prepare was holding. Containerd inside this process has no other user.
func (d *Driver) sweepLeases(ctx context.Context) {
	svc := d.client.LeasesService()
	list, err := svc.List(ctx)
	if err != nil {
		return
	}
	for _, l := range list {
		_ = svc.Delete(ctx, l)
	}
}

// sweepShims ends shims of ours that containerd does not know: one whose start was interrupted. The helper that starts a shim may be
// at it still, so it looks again until there is none.
func (d *Driver) sweepShims(ctx context.Context) {
	for range 100 {
		found := 0
		for pid, id := range d.shims() {
			if _, err := d.client.TaskService().Get(ctx, &tasks.GetRequest{ContainerID: id}); !isNotFound(err) {
				continue
			}
			_ = unix.Kill(pid, unix.SIGKILL)
			found++
		}
		if found == 0 {
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// endShim ends the shim of a sandbox that has no task: one that was started for a task which was then not made, and of which containerd
// knows nothing.
func (d *Driver) endShim(id string) {
	for pid, of := range d.shims() {
		if of == id {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
	_ = os.Remove(d.cfg.shimSocket(id))
}

// shims lists the processes that are shims of this driver's, with their sandboxes' ids.
func (d *Driver) shims() map[int]string {
	out := map[int]string{}
	entries, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return out
	}
	for _, file := range entries {
		raw, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		id, ok := d.shimOf(raw)
		if !ok {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
			out[pid] = id
		}
	}
	return out
}

// sweepBundles removes bundles whose removal was interrupted: containerd renames them first, and never looks again.
func (d *Driver) sweepBundles() {
	for _, root := range []string{d.cfg.bundleRoot(), d.cfg.workRoot()} {
		hidden, err := filepath.Glob(filepath.Join(root, ".*"))
		if err != nil {
			continue
		}
		for _, dir := range hidden {
			if err := os.RemoveAll(dir); err != nil {
				d.log.Warn("a bundle that a crash left cannot be removed", "path", dir, "err", err)
			}
		}
	}
}

// sweepSockets removes the sockets of shims that are gone: a shim takes its own away only when it ends by itself.
func (d *Driver) sweepSockets() {
	entries, err := os.ReadDir(d.cfg.shimSockets())
	if err != nil {
		return
	}
	for _, e := range entries {
		path := filepath.Join(d.cfg.shimSockets(), e.Name())
		conn, err := net.Dial("unix", path)
		if err == nil {
			conn.Close()
		} else if errors.Is(err, unix.ECONNREFUSED) {
			_ = os.Remove(path)
		}
	}
}

// shimOf returns the instance of a shim by its command line; false where it is no shim of this driver's.
func (d *Driver) shimOf(cmdline []byte) (string, bool) {
	var args []string
	for _, a := range bytes.Split(bytes.TrimSuffix(cmdline, []byte{0}), []byte{0}) {
		args = append(args, string(a))
	}
	if len(args) < 2 || args[1] != shimFirstFlag {
		return "", false
	}
	value := func(name string) string {
		if i := slices.Index(args, name); i >= 0 && i+1 < len(args) {
			return args[i+1]
		}
		return ""
	}
	return value("-id"), value("-address") == d.cfg.engineSocket() && value(shimFirstFlag) == namespace
}
