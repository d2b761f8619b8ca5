//go:build linux

package containerd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/runtime/attach"
	"github.com/tatami-faas/tatami/runtime/attach/wire"
	"github.com/tatami-faas/tatami/runtime/sandbox"
)

// A container that was made ahead is one of the OCI runtime's, made for a function and not started: nothing but the runtime's own process is in it.
// The runtime fixes at its making what it runs and with which environment, of which the instance's id is part. So its program is the init of sandboxes
// made ahead, which lies in the container's /tmp: when it is started it finds there what to become, and removes both. The function finds
// itself in what the OCI runtime would have made for it at the start.

// labelPrecreated is on a container that was made ahead; an attachment says whose it is.
const labelPrecreated = "tatami.precreated"

// precreatedScratch is the least ephemeral storage with room for the init.
const precreatedScratch = 4 * functions.MiB

// beginning are the capabilities that the init has in a sandbox of gVisor's, whose kernel is the only one that knows the host name: it sets that and
// gives them up, and the right to ever have them.
var beginning = []string{"CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_ADMIN"}

// precreate makes a container for instances like that of the specification. Where low says so, it gives way to functions meanwhile.
func (d *Driver) precreate(ctx context.Context, s sandbox.Spec, art *artifact, low bool) (_ *box, err error) {
	ctx, cancel := context.WithTimeout(ctx, precreateTime)
	defer cancel()
	s.ID, s.Record = functions.NewInstanceID(), nil
	b := d.newBox(s.ID, "", 0)
	defer func() {
		if err != nil {
			d.discard(context.WithoutCancel(ctx), b)
		}
	}()
	spec, err := d.ociSpec(art, s, d.scratch(b.sid))
	if err != nil {
		return nil, err
	}
	p, err := d.plan(b, s, art, spec, names{spec.Hostname, noNameservers})
	if err != nil {
		return nil, err
	}
	p.labels[labelPrecreated] = "yes"
	files := p.files
	p.files = func() error {
		if err := files(); err != nil {
			return err
		}
		program, err := attach.Init()
		if err != nil {
			return err
		}
		return bring(d.scratch(b.sid), wire.StartProgram, program, 0o555, p.uid, p.gid)
	}
	process := *spec.Process
	process.Args, process.Env = []string{wire.StartProgram, wire.StartWords}, []string{"GOMAXPROCS=1", "GOGC=off", "HOME=/"}
	if b.gvisor {
		caps := slices.Concat(beginning, process.Capabilities.Bounding)
		slices.Sort(caps)
		caps = slices.Compact(caps)
		process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
	}
	spec.Process = &process
	if cpu := spec.Linux.Resources.CPU; low && cpu.Shares != nil {
		less := *cpu
		less.Shares = new(min(*cpu.Shares, defaultShares/makingPart))
		spec.Linux.Resources.CPU = &less
	}
	p.low = low
	return b, d.createTask(ctx, b, p)
}

// bring puts a file, which a process of the user may remove, where the sandbox has it at the path.
func bring(sc scratch, path string, content []byte, mode os.FileMode, uid, gid uint32) error {
	at := filepath.Join(sc.tmp(), filepath.Base(path))
	if err := os.WriteFile(at, content, 0o600); err != nil {
		return err
	}
	if err := os.Chmod(at, mode); err != nil {
		return err
	}
	return os.Chown(at, int(uid), int(gid))
}

// startPrecreated starts the function in a container that waits for it. Where it is false without an error, nothing of the function has run, b is as
// before but for the reason in its info, and another container can be made.
func (d *Driver) startPrecreated(ctx context.Context, b *box, s sandbox.Spec, art *artifact, spec *specs.Spec, told names) (bool, error) {
	waiting := d.precreated.take(s)
	if waiting == nil {
		return false, nil
	}
	b.take(waiting)
	b.function = spec.Process
	limited, cancel := context.WithTimeout(ctx, attachTime)
	defer cancel()
	err := d.instruct(b, s, spec, told)
	made := time.Now()
	if err == nil {
		_, err = d.client.TaskService().Start(limited, &tasks.StartRequest{ContainerID: b.sid})
	}
	if err == nil {
		// The socket comes to be after the start; the function, later still, finds in it who has come meanwhile.
		b.info.Activated = s.Activate && b.AwaitListening(limited) == nil
		b.info.StartPath = pathPrecreated
		b.info.Create, b.info.Start = made.Sub(b.info.Created), time.Since(made)
		d.tellUser(b, art)
		return true, nil
	}
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	d.precreated.failed(s)
	// The container is spoilt. Nothing may run in it, or be found to be the instance's, once another is.
	d.cgroup.kill(b.sid)
	if rerr := os.Remove(d.cfg.attachment(b.sid)); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
		return false, errors.Join(err, rerr)
	}
	gone := b.leave()
	d.precreated.task.Go(func() { d.precreated.remove(gone) })
	d.log.Warn("a function cannot be started in a container made ahead", "inst", s.ID, "err", err)
	b.info.PathReason += "; the start of a container made ahead failed"
	return false, nil
}

// instruct tells the container whose it is and what to become. Everything is in place afterwards for its start.
func (d *Driver) instruct(b *box, s sandbox.Spec, spec *specs.Spec, told names) error {
	p, sc := spec.Process, d.scratch(b.sid)
	words := wire.Words{Drop: b.gvisor, Request: wire.Request{
		UID: p.User.UID, GID: p.User.GID, Groups: p.User.AdditionalGids, Cwd: p.Cwd, Args: p.Args, Env: p.Env,
	}}
	if p.User.UID == 0 {
		words.Request.Keep = rootKeeps()
	}
	if s.Activate {
		words.Request.Listen, words.Request.Env = uint32(s.Port), append(slices.Clip(p.Env), activation...)
	}
	if b.gvisor {
		words.Hostname = spec.Hostname
	}
	raw, err := words.Encode()
	if err != nil {
		return err
	}
	if err := d.writeAttachment(b.sid, attachment{
		Instance: s.ID, Artifact: b.digest, Port: b.port, Created: b.info.Created, Record: s.Record, Process: p,
	}); err != nil {
		return fmt.Errorf("record the attachment: %w", err)
	}
	// It was made with less.
	share := &specs.LinuxCPU{Shares: spec.Linux.Resources.CPU.Shares}
	if err := d.cgroup.limit(b.sid, &specs.LinuxResources{CPU: share}); err != nil {
		return fmt.Errorf("give the function its share of the processors: %w", err)
	}
	if err := sc.name(told); err != nil {
		return err
	}
	if err := bring(sc, wire.StartWords, raw, 0o400, b.ids+p.User.UID, b.ids+p.User.GID); err != nil {
		return err
	}
	if !b.gvisor {
		if err := attach.Rename(b.process, spec.Hostname); err != nil {
			return err
		}
	}
	if s.Egress {
		return d.egress.Plug(b.sid, b.netns)
	}
	return nil
}
