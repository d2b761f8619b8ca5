//go:build linux

package containerd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"golang.org/x/sys/unix"
)

// Stop ends the process and removes the sandbox.
func (b *box) Stop(ctx context.Context, grace time.Duration) error {
	d := b.d
	ctx, err := d.await(ctx)
	if err != nil {
		return err
	}
	d.mu.Lock()
	b.stopping = true
	d.mu.Unlock()
	select {
	case b.turn <- struct{}{}:
		defer func() { <-b.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	b.mu.Lock()
	removed := b.removed
	b.mu.Unlock()
	if removed {
		return nil
	}
	if err := b.terminate(ctx, grace); err != nil {
		return fmt.Errorf("stop the sandbox %s: %w", b.info.ID, err)
	}
	if err := d.remove(ctx, b); err != nil {
		return fmt.Errorf("remove the sandbox %s: %w", b.info.ID, err)
	}
	return nil
}

func (b *box) stopBegun() bool {
	b.d.mu.Lock()
	defer b.d.mu.Unlock()
	return b.stopping
}

func (b *box) ended() bool {
	select {
	case <-b.done:
		return true
	default:
		return false
	}
}

// terminate returns when the process has ended.
func (b *box) terminate(ctx context.Context, grace time.Duration) error {
	if b.ended() {
		return nil
	}
	// On v1 a frozen process does not even get SIGKILL.
	if err := b.d.cgroup.thaw(b.sid); err != nil {
		return err
	}
	if grace > 0 && !b.ignoresTerm() {
		if err := b.signal(unix.SIGTERM); err != nil {
			return err
		}
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case <-b.done:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
	}
	// The first process of a pid namespace takes all others with it.
	if err := b.signal(unix.SIGKILL); err != nil {
		return err
	}
	timer := time.NewTimer(killTime)
	defer timer.Stop()
	select {
	case <-b.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return errors.New("the process does not end")
	}
}

// remove takes everything away that carries the sandbox's id. It can be repeated, and begun where a crash has stopped it.
func (d *Driver) remove(ctx context.Context, b *box) error {
	id := b.sid
	if b.own {
		if err := b.endOwn(ctx); err != nil {
			return err
		}
		b.release()
	} else {
		b.release()
		if err := d.removeContainer(ctx, id); err != nil {
			return err
		}
	}
	if err := d.removeRemains(id); err != nil {
		return err
	}
	b.mu.Lock()
	b.removed = true
	ids := b.ids
	b.ids = 0
	b.mu.Unlock()
	d.mu.Lock()
	delete(d.boxes, b.info.ID)
	d.mu.Unlock()
	d.ids.give(ids)
	if b.own {
		d.leaveKeepers()
	}
	b.end(unknownExit)
	if err := d.dropView(ctx, b.digest); err != nil {
		d.log.Warn("the layers of a forgotten artifact stay", "artifact", b.digest, "err", err)
	}
	return nil
}

func (d *Driver) removeContainer(ctx context.Context, id string) error {
	if err := d.removeTask(ctx, id); err != nil {
		return err
	}
	if err := d.client.ContainerService().Delete(ctx, id); err != nil && !isNotFound(err) {
		return err
	}
	return nil
}

// removeTask ends and deletes the task, if there is one.
func (d *Driver) removeTask(ctx context.Context, id string) error {
	svc := d.client.TaskService()
	ctx, cancel := context.WithTimeout(ctx, cleanupTime)
	defer cancel()
	if r, err := svc.Get(ctx, &tasks.GetRequest{ContainerID: id}); isNotFound(err) {
		if d.engine != nil {
			d.endShim(id)
		}
		return nil
	} else if err == nil && r.Process.Status != task.Status_STOPPED {
		// It runs, or its start was interrupted: the shim would wait for its output's end before it deletes it.
		d.cgroup.kill(id)
		wait, cancel := context.WithTimeout(ctx, time.Second)
		_, _ = svc.Wait(wait, &tasks.WaitRequest{ContainerID: id})
		cancel()
	}
	for try := 1; ; try++ {
		_, err := svc.Delete(ctx, &tasks.DeleteTaskRequest{ContainerID: id})
		if err == nil || isNotFound(err) {
			return nil
		}
		d.cgroup.kill(id)
		// A shim that died is cleaned up by containerd in its own time.
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(time.Duration(min(try, 20)) * 10 * time.Millisecond):
		}
	}
}

// removeRemains takes away what containerd does not know of, or what it left.
func (d *Driver) removeRemains(id string) error {
	d.cgroup.kill(id)
	if err := d.egress.Unplug(id); err != nil {
		return err
	}
	if err := d.cgroup.remove(id); err != nil {
		return err
	}
	if d.engine != nil {
		bundle := filepath.Join(d.cfg.bundleRoot(), id)
		if err := unmount(filepath.Join(bundle, "rootfs")); err != nil {
			return err
		}
		for _, dir := range []string{bundle, filepath.Join(d.cfg.workRoot(), id)} {
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
		}
	}
	if err := os.RemoveAll(filepath.Join(d.cfg.runcRoot(), namespace, id)); err != nil {
		return err
	}
	if err := d.forgetGVisor(id); err != nil {
		return err
	}
	if err := d.scratch(id).remove(); err != nil {
		return err
	}
	// The attachment is last: with it goes the knowledge whose the sandbox was.
	for _, f := range []string{d.cfg.stdout(id), d.cfg.stderr(id), d.cfg.shimSocket(id), d.cfg.exit(id), d.cfg.attachment(id)} {
		if err := os.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// toNative gives an error of containerd's its class whether or not it came over a socket.
func toNative(err error) error { return errgrpc.ToNative(err) }
