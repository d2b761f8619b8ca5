//go:build linux

package containerd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/process"
	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/runc"
	"github.com/containerd/containerd/v2/core/containers"
	"golang.org/x/sys/unix"

	"github.com/tatami-faas/tatami/functions"
)

// adopt takes over every container of this node. It goes by the state of the tasks, which it asks for, not by events, which may be missed.
func (d *Driver) adopt(ctx context.Context, exits map[string]functions.Exit) error {
	list, err := d.client.ContainerService().List(ctx, fmt.Sprintf("labels.%q==%q", labelNode, d.cfg.NodeName))
	if err != nil {
		return err
	}
	for _, c := range list {
		b := d.adopted(c)
		if b == nil {
			// Nobody's: nothing of a function has been in it.
			d.discard(ctx, d.newBox(functions.InstanceID(c.ID), "", 0))
			continue
		}
		d.adoptOne(ctx, b, exits)
	}
	return nil
}

// recordedExits reads how processes ended that ended while nobody looked: their shims wrote it down. It must be read before containerd
// starts, which takes a shim without a process for a leak and removes it with all that it knew.
func (d *Driver) recordedExits() map[string]functions.Exit {
	out := map[string]functions.Exit{}
	entries, err := os.ReadDir(d.cfg.bundleRoot())
	if err != nil {
		return out
	}
	for _, e := range entries {
		bundle := filepath.Join(d.cfg.bundleRoot(), e.Name())
		exit, err := runc.ReadExitStatus(bundle)
		for try := 0; err != nil && try < 50 && initGone(bundle); try++ {
			// The shim writes it a moment after the process's end.
			time.Sleep(2 * time.Millisecond)
			exit, err = runc.ReadExitStatus(bundle)
		}
		if err != nil {
			continue
		}
		out[e.Name()] = functions.Exit{Code: exit.Status, OOM: exit.Status == killedExit && d.cgroup.oomKills(e.Name()) > 0}
	}
	return out
}

// initGone reports whether the bundle's process was started and has ended.
func initGone(bundle string) bool {
	raw, err := os.ReadFile(filepath.Join(bundle, process.InitPidFile))
	if err != nil {
		return false
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	return err == nil && errors.Is(unix.Kill(pid, 0), unix.ESRCH)
}

// adopted is the box of a container; nil where it was made ahead and given to no instance.
func (d *Driver) adopted(c containers.Container) *box {
	port, _ := strconv.Atoi(c.Labels[labelPort])
	b := d.newBox(functions.InstanceID(c.ID), c.Labels[labelArtifact], port)
	b.info.Created = c.CreatedAt
	if r := c.Extensions[extRecord]; r != nil {
		b.info.Record = r.GetValue()
	}
	if c.Labels[labelPrecreated] != "" {
		a, err := d.readAttachment(c.ID)
		if err != nil {
			return nil
		}
		b = d.newBox(a.Instance, a.Artifact, a.Port)
		b.carry(c.ID)
		b.function, b.info.Created, b.info.Record = a.Process, a.Created, a.Record
	}
	b.made, b.gvisor = true, c.Labels[labelGVisor] != ""
	return b
}

// adoptOne takes over a container.
func (d *Driver) adoptOne(ctx context.Context, b *box, exits map[string]functions.Exit) {
	id := b.sid
	d.mu.Lock()
	d.boxes[b.info.ID] = b
	d.mu.Unlock()

	running, code, err := d.state(ctx, id)
	if err == nil && running {
		// The number is the process's own only if it still runs after we have taken hold of it.
		if err = d.holdRunning(ctx, b); err == nil {
			b.ids = d.ids.claim(b.info.PID)
			d.watch(b)
			d.log.Info("sandbox adopted", "inst", b.info.ID, "pid", b.info.PID)
			return
		}
		running, code, err = d.state(ctx, id)
	}
	if err != nil || running {
		code = unknownExit
	}
	b.release()
	b.info.PID = 0
	if exit, ok := exits[id]; ok && code == unknownExit {
		b.endAs(exit)
		code = exit.Code
	}
	b.end(code)
	d.log.Info("sandbox of an earlier run has ended", "inst", b.info.ID, "code", code, "err", err)
}

func (d *Driver) holdRunning(ctx context.Context, b *box) error {
	id := b.sid
	r, err := d.client.TaskService().Get(ctx, &tasks.GetRequest{ContainerID: id})
	if err != nil {
		return err
	}
	if err := b.hold(int(r.Process.Pid)); err != nil {
		return err
	}
	again, err := d.client.TaskService().Get(ctx, &tasks.GetRequest{ContainerID: id})
	if err != nil {
		return err
	}
	if again.Process.Status == task.Status_STOPPED || again.Process.Pid != r.Process.Pid {
		return fmt.Errorf("the process of %s ended meanwhile", id)
	}
	return nil
}
