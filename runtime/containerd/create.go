//go:build linux

package containerd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"strconv"
	"strings"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/runtime/sandbox"
)

const (
	labelNode     = "tatami.node"
	labelArtifact = "tatami.artifact"
	labelPort     = "tatami.port"
	labelGVisor   = "tatami.gvisor"
	// extRecord is the name and the type of the container's extension that holds the worker's record.
	extRecord = "tatami.record"
	maxRecord = 64 << 10

	// cleanupTime bounds what is done after the caller has gone.
	cleanupTime = 30 * time.Second
)

// Create makes a sandbox and starts its process.
func (d *Driver) Create(ctx context.Context, s sandbox.Spec) (sandbox.Sandbox, error) {
	ctx, err := d.await(ctx)
	if err != nil {
		return nil, err
	}
	if !s.ID.Valid() {
		return nil, fault.New(fault.CodeInvalidRequest, "%q is no instance's id", s.ID)
	}
	if len(s.Record) > maxRecord {
		return nil, fault.New(fault.CodeInvalidRequest, "the record has %d bytes; at most %d are kept", len(s.Record), maxRecord)
	}
	b := d.newBox(s.ID, s.Artifact.Digest, s.Port)
	b.info.Record = s.Record
	d.mu.Lock()
	_, exists := d.boxes[s.ID]
	if !exists {
		d.boxes[s.ID] = b
	}
	d.mu.Unlock()
	if exists {
		return nil, fault.New(fault.CodeConflict, "the sandbox %s exists", s.ID)
	}

	if err := d.make(ctx, b, s); err != nil {
		cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
		defer cancel()
		b.release()
		if rerr := d.remove(cleanup, b); rerr != nil {
			// It is listed from now on, and goes with Stop or the next start.
			d.log.Warn("a sandbox that could not be made is not removed", "inst", s.ID, "err", rerr)
			d.mu.Lock()
			b.made, b.stopping = true, true
			d.mu.Unlock()
			b.end(unknownExit)
		}
		return nil, err
	}
	d.mu.Lock()
	b.made = true
	d.mu.Unlock()
	if b.own {
		d.watchOwn(b)
	} else {
		d.watch(b)
	}
	d.log.Debug("sandbox made", "inst", s.ID, "pid", b.info.PID, "path", b.info.StartPath, "why", b.info.PathReason, "dur_ms", (b.info.Create + b.info.Start).Milliseconds())
	return b, nil
}

func (d *Driver) make(ctx context.Context, b *box, s sandbox.Spec) error {
	begun := time.Now()
	art, err := d.artifact(ctx, s.Artifact.Digest)
	if err != nil {
		return err
	}
	spec, err := d.ociSpec(art, s, d.scratch(b.sid))
	if err != nil {
		return err
	}
	told, err := d.names(s, spec.Hostname)
	if err != nil {
		return err
	}
	b.listens = &art.listens
	b.info.Created = begun
	defer d.startBegins(b, s, art)()
	if s.GVisor {
		b.slower, b.info.PathReason = "gvisor", gvisorWhy
	} else if attached, err := d.attach(ctx, b, s, art, spec, told); attached || err != nil {
		return err
	}
	started, err := d.startPrecreated(ctx, b, s, art, spec, told)
	if err == nil && !started {
		err = d.startPlain(ctx, b, s, art, spec, told)
	}
	if err != nil {
		return err
	}
	d.pool.counted(b.info.StartPath, b.slower)
	d.precreated.started(s, art)
	return nil
}

// startPlain has the OCI runtime make and start the sandbox.
func (d *Driver) startPlain(ctx context.Context, b *box, s sandbox.Spec, art *artifact, spec *specs.Spec, told names) error {
	p, err := d.plan(b, s, art, spec, told)
	if err != nil {
		return err
	}
	d.tellUser(b, art)
	if err := d.createTask(ctx, b, p); err != nil {
		return startFault(s, err)
	}
	if s.Egress {
		if err := d.egress.Plug(b.sid, b.netns); err != nil {
			return err
		}
	}
	made := time.Now()
	if _, err := d.client.TaskService().Start(ctx, &tasks.StartRequest{ContainerID: b.sid}); err != nil {
		return startFault(s, err)
	}
	b.info.StartPath = pathContainerd
	b.info.Create, b.info.Start = made.Sub(b.info.Created), time.Since(made)
	return nil
}

// plan is what containerd and the OCI runtime are told of a sandbox.
type plan struct {
	labels map[string]string
	record []byte
	spec   *specs.Spec
	root   *types.Mount
	// runtime is the OCI runtime, runtimeRoot where it keeps its records.
	runtime, runtimeRoot string
	// uid and gid own the output's pipes.
	uid, gid uint32
	// files makes what the mounts name.
	files func() error
	// low has what makes it give way to functions.
	low bool
}

// plan says how the OCI runtime makes a sandbox with the specification.
func (d *Driver) plan(b *box, s sandbox.Spec, art *artifact, spec *specs.Spec, told names) (plan, error) {
	sc := d.scratch(b.sid)
	spec.Linux.Seccomp = seccomp.DefaultProfile(spec)
	p := plan{
		labels: map[string]string{labelArtifact: s.Artifact.Digest, labelPort: strconv.Itoa(s.Port)},
		record: s.Record, spec: spec, root: sc.rootfs(art), runtime: d.runc, runtimeRoot: d.cfg.runcRoot(),
		// The process may open /dev/stdout again: the pipe must be its own.
		uid: art.user.uid, gid: art.user.gid,
		files: func() error { return sc.make(s.Limits, told) },
	}
	if b.gvisor = s.GVisor; s.GVisor {
		return p, d.gvisor(&p)
	}
	if art.user.mapped {
		return p, d.mapIDs(b, &p, art, sc)
	}
	return p, nil
}

// createTask makes the container, its shim and its process, which waits to be started.
func (d *Driver) createTask(ctx context.Context, b *box, p plan) error {
	id := b.sid
	// The container's record, which costs a commit to disk, the scratch and the shim do not need each other.
	var all errgroup.Group
	all.Go(func() error { return d.record(ctx, id, p) })
	all.Go(func() error {
		for _, f := range []string{b.info.Stdout, b.info.Stderr} {
			if err := os.WriteFile(f, nil, 0o600); err != nil {
				return err
			}
		}
		return p.files()
	})
	request := &tasks.CreateTaskRequest{
		ContainerID: id,
		Rootfs:      []*types.Mount{p.root},
		// Without a scheme the shim appends to the files; with file:// it would lead both into one.
		Stdout: b.info.Stdout, Stderr: b.info.Stderr,
	}
	shim := 0
	if d.engine != nil {
		request.TaskApiAddress, request.TaskApiVersion = d.cfg.shimAddress(id), shimVersion
		all.Go(func() (err error) { shim, err = d.startShim(id, p.low); return err })
	}
	if err := all.Wait(); err != nil {
		return err
	}
	created, err := d.client.TaskService().Create(ctx, request)
	if err != nil {
		return err
	}
	if p.low && shim != 0 {
		if err := d.cgroup.comeBack(shim); err != nil {
			return fmt.Errorf("have the shim give way no more: %w", err)
		}
	}
	if err := b.hold(int(created.Pid)); err != nil || !b.gvisor {
		return err
	}
	return wake(b.netns)
}

// record writes the container into containerd's database: its one commit for a sandbox.
func (d *Driver) record(ctx context.Context, id string, p plan) error {
	specAny, err := typeurl.MarshalAny(p.spec)
	if err != nil {
		return err
	}
	opts, err := typeurl.MarshalAny(&options.Options{BinaryName: p.runtime, Root: p.runtimeRoot, IoUid: p.uid, IoGid: p.gid})
	if err != nil {
		return err
	}
	group := ""
	if d.engine != nil {
		group = shimGroup
	}
	labels := map[string]string{labelNode: d.cfg.NodeName}
	maps.Copy(labels, p.labels)
	_, err = d.client.ContainerService().Create(ctx, containers.Container{
		ID: id, SandboxID: group, Labels: labels,
		Runtime:    containers.RuntimeInfo{Name: d.runtime(), Options: opts},
		Spec:       specAny,
		Extensions: map[string]typeurl.Any{extRecord: &anypb.Any{TypeUrl: extRecord, Value: p.record}},
	})
	if errdefs.IsAlreadyExists(err) {
		return fault.Wrap(fault.CodeConflict, err, "the sandbox %s exists", id)
	}
	return err
}

// runtime is our own shim by its path; an existing containerd has its.
func (d *Driver) runtime() string {
	if d.engine == nil {
		return runtimeName
	}
	return d.cfg.shimBinary()
}

// startFault tells a function that cannot be started from a platform that fails.
func startFault(s sandbox.Spec, err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	why, ok := whyNotStarted(err)
	if !ok {
		return fmt.Errorf("make the sandbox %s: %w", s.ID, err)
	}
	return notStarted(why)
}

// notStarted is the fault of a command that cannot be run in its image.
func notStarted(why string) error {
	return fault.New(fault.CodeFunctionNotReady, "the process cannot be started: %s", why).
		WithHint("check 'command' and the image's entrypoint and user")
}

// whyNotStarted finds what the OCI runtime, runc or runsc, says of a process that it could not start; false: the failure is another.
func whyNotStarted(err error) (string, bool) {
	msg := err.Error()
	for _, marker := range []string{"unable to start container process: ", "starting sandbox: creating process: ", " in sandbox: "} {
		if i := strings.LastIndex(msg, marker); i >= 0 {
			return strings.TrimSuffix(msg[i+len(marker):], ": unknown"), true
		}
	}
	return "", false
}
