//go:build linux

package containerd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/runtime/attach"
	"github.com/tatami-faas/tatami/runtime/attach/wire"
	"github.com/tatami-faas/tatami/runtime/sandbox"
)

// The ways in which a sandbox is started.
const (
	pathAttach     = "attach"
	pathPrecreated = "precreated"
	pathContainerd = "containerd"
)

// activation tells the first process of a sandbox of the socket that it is given, as systemd would.
var activation = []string{"LISTEN_FDS=1", "LISTEN_PID=1", "LISTEN_FDNAMES=http"}

// attachTime bounds the start of a function in a waiting sandbox.
const attachTime = 10 * time.Second

// attachmentSchema is the schema number of an attachment to a sandbox of the pool, containerSchema that of one to a container, which older
// programs cannot read.
const (
	attachmentSchema = 1
	containerSchema  = 2
)

// attachment says whose a sandbox is that was made ahead. It is written before anything of the function enters the sandbox, and lies on
// the file system of RunDir, which a reboot empties like the sandboxes.
type attachment struct {
	Schema   int                  `json:"schema"`
	Instance functions.InstanceID `json:"instance"`
	Artifact string               `json:"artifact"`
	Port     int                  `json:"port"`
	Created  time.Time            `json:"created"`
	Record   []byte               `json:"record"`
	// Keeper is the socket of the sandbox's keeper; empty where it is a container.
	Keeper string `json:"keeper"`
	// Process is the function's, for Exec.
	Process *specs.Process `json:"process"`
	// Limit is what the processors are to be limited to after the start; nil where that is so from its beginning.
	Limit *specs.LinuxCPU `json:"limit,omitempty"`
}

func (d *Driver) writeAttachment(sid string, a attachment) error {
	if a.Schema = attachmentSchema; a.Keeper == "" {
		a.Schema = containerSchema
	}
	raw, err := json.Marshal(a)
	if err != nil {
		return err
	}
	// One that a crash cuts short is none: then nothing has entered the sandbox.
	return os.WriteFile(d.cfg.attachment(sid), raw, 0o600)
}

func (d *Driver) readAttachment(sid string) (*attachment, error) {
	raw, err := os.ReadFile(d.cfg.attachment(sid))
	if err != nil {
		return nil, err
	}
	var a attachment
	if err := json.Unmarshal(raw, &a); err != nil {
		return nil, err
	}
	known := a.Schema == attachmentSchema && a.Keeper != "" || a.Schema == containerSchema && a.Keeper == ""
	if !known || !a.Instance.Valid() || a.Process == nil {
		return nil, fmt.Errorf("the attachment of %s is incomplete or of another schema", sid)
	}
	return &a, nil
}

// attach starts the function in a waiting sandbox. Where it is false without an error, nothing of the function has run, b is as before but
// for the reason in its info, and the way through containerd is open.
func (d *Driver) attach(ctx context.Context, b *box, s sandbox.Spec, art *artifact, spec *specs.Spec, told names) (bool, error) {
	pool := d.poolOf(art)
	why := func(class, reason string) (bool, error) {
		b.slower, b.info.PathReason = class, reason
		return false, nil
	}
	if pool.bounds.ceiling == 0 {
		return why("no-pool", "there is no pool")
	}
	if reason := notPoolable(s, art); reason != "" {
		return why("not-poolable", reason)
	}
	p := spec.Process
	request := wire.Request{UID: p.User.UID, GID: p.User.GID, Groups: p.User.AdditionalGids, Cwd: p.Cwd, Args: p.Args, Env: p.Env}
	if s.Activate {
		request.Listen, request.Env = uint32(s.Port), append(slices.Clip(p.Env), activation...)
	}
	if art.user.mapped {
		request.Keep = rootKeeps()
	}
	raw, err := request.Encode()
	if err != nil {
		return why("not-poolable", err.Error())
	}
	sp, reason := pool.take(ctx, s.Egress)
	switch {
	case ctx.Err() != nil && sp == nil:
		return false, ctx.Err()
	case sp == nil:
		return why("pool-empty", reason)
	}
	d.checkLink(sp)
	class := ""
	switch {
	case reason != "":
		class = "pool-empty"
	case s.Egress && !sp.linked:
		class, reason = "no-link", noLink
	}
	b.take(sp.box)
	if s.Activate {
		// Its socket listens from the beginning.
		b.dropEar()
	}
	b.function = p
	limited, cancel := context.WithTimeout(ctx, attachTime)
	defer cancel()
	var made time.Time
	var unheard error
	err = d.enter(pool, b, sp, s, art, spec, told, func() error { return attach.Hand(limited, sp.conn, raw) }, func() {
		made, unheard = time.Now(), attach.Begin(sp.conn)
	})
	if err == nil {
		err = attach.Await(limited, sp.conn, unheard)
	}
	sp.close()
	var refused *attach.RefusedError
	switch {
	case err == nil:
		b.info.StartPath, b.info.PathReason, b.info.Activated = pathAttach, reason, s.Activate
		pool.counted(pathAttach, class)
		d.tellUser(b, art)
		b.info.Create, b.info.Start = made.Sub(b.info.Created), time.Since(made)
		return true, nil
	case errors.As(err, &refused):
		return false, notStarted(refused.Why)
	case ctx.Err() != nil:
		return false, ctx.Err()
	}
	// The sandbox is spoilt. Nothing may run in it, or be found to be the instance's, once another sandbox is.
	d.cgroup.kill(b.sid)
	if rerr := os.Remove(d.cfg.attachment(b.sid)); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
		return false, errors.Join(err, rerr)
	}
	pool.discard(b.leave())
	if errors.Is(err, attach.ErrPlace) || errors.Is(err, attach.ErrLayers) {
		art.unpoolable.Store(err.Error())
		return why("not-poolable", err.Error())
	}
	d.log.Warn("a function cannot be started in a waiting sandbox", "inst", s.ID, "err", err)
	return why("attach-failed", "the attach failed: "+err.Error())
}

// notPoolable says why the sandbox must be made by the OCI runtime; empty where it need not.
func notPoolable(s sandbox.Spec, art *artifact) string {
	if l := s.Limits; l.CPU <= 0 || l.Memory <= 0 || l.Ephemeral <= 0 || l.PIDs <= 0 {
		return "the function lacks a limit"
	}
	reason, _ := art.unpoolable.Load().(string)
	return reason
}

// enter brings the function's surroundings into the waiting sandbox. It calls hand when the process may get ready, and begin when everything is in
// place but the process.
func (d *Driver) enter(pool *pool, b *box, sp *spare, s sandbox.Spec, art *artifact, spec *specs.Spec, told names, hand func() error, begin func()) (err error) {
	sc := d.scratch(b.sid)
	// It takes as long as all that comes before it is entered.
	built := sync.OnceValues(func() (*attach.Root, error) { return buildRoot(art, sc, spec.Mounts, sp.users, int(b.ids)) })
	go func() { _, _ = built() }()
	defer func() {
		if root, _ := built(); root != nil {
			// The function does not wait for that.
			pool.tasks.Go(root.Close)
		}
	}()
	resources, limit := d.boosted(spec.Linux.Resources)
	if err := d.writeAttachment(b.sid, attachment{
		Instance: s.ID, Artifact: b.digest, Port: b.port, Created: b.info.Created, Record: s.Record, Keeper: b.keeper, Process: spec.Process, Limit: limit,
	}); err != nil {
		return fmt.Errorf("record the attachment: %w", err)
	}
	plugged := func() error { return nil }
	if s.Egress && !sp.linked {
		// The rest does not need it; the function must not run before it is there. It is made by a goroutine of its own: who waits for it is in the sandbox.
		made := make(chan struct{})
		var failed error
		go func() {
			defer close(made)
			failed = d.egress.Plug(b.sid, b.netns)
		}()
		plugged = func() error { <-made; return failed }
		defer func() { _ = plugged() }()
	}
	if err := d.cgroup.limit(b.sid, resources); err != nil {
		return fmt.Errorf("write the limits: %w", err)
	}
	b.hasBoost(limit)
	if err := sc.become(s.Limits, told); err != nil {
		return fmt.Errorf("size the scratch: %w", err)
	}
	for _, fd := range []int{1, 2} {
		// The process may open /dev/stdout again: the pipe must be its own.
		pipe := filepath.Join("/proc", strconv.Itoa(b.info.PID), "fd", strconv.Itoa(fd))
		if err := os.Chown(pipe, int(b.ids+spec.Process.User.UID), int(b.ids+spec.Process.User.GID)); err != nil {
			return fmt.Errorf("give the output to the function: %w", err)
		}
	}
	root, err := built()
	if err != nil {
		return err
	}
	return attach.Enter(attach.Place{Process: b.process}, root, attach.Setting{Hostname: spec.Hostname, Cwd: spec.Process.Cwd, ReadOnly: s.ReadOnlyRoot}, hand, func() error {
		if err := plugged(); err != nil {
			return err
		}
		begin()
		return nil
	})
}

// buildRoot returns the function's root, which no sandbox has yet. With a user namespace, its files show by the ids of that, whose root is the
// machine's user owner; nil and 0 without one. Close must be called.
func buildRoot(art *artifact, sc scratch, mounts []specs.Mount, users *os.File, owner int) (*attach.Root, error) {
	root, err := attach.NewRoot(art.lower, sc.upper(), sc.work(), users)
	if err != nil {
		return nil, err
	}
	dirs, files := points(mounts)
	if err := root.Points(dirs, files, owner); err != nil {
		root.Close()
		return nil, err
	}
	return root, nil
}

// points are the mounts that the waiting sandbox has and the function's root gets: those that lie in no other.
func points(mounts []specs.Mount) (dirs, files []string) {
	for _, m := range mounts {
		switch filepath.Dir(m.Destination) {
		case "/":
			dirs = append(dirs, m.Destination)
		case "/etc":
			files = append(files, m.Destination)
		}
	}
	return dirs, files
}

// take makes the box the waiting sandbox's.
func (b *box) take(waiting *box) {
	b.carry(waiting.sid)
	b.own, b.keeper, b.gvisor = waiting.own, waiting.keeper, waiting.gvisor
	waiting.mu.Lock()
	process, netns, ear := waiting.process, waiting.netns, waiting.ear
	waiting.process, waiting.netns, waiting.ear = nil, nil, nil
	waiting.mu.Unlock()
	b.mu.Lock()
	b.process, b.netns, b.ear = process, netns, ear
	b.ids, waiting.ids = waiting.ids, 0
	b.mu.Unlock()
	b.info.PID = waiting.info.PID
}

// leave undoes take, and returns what is to be removed.
func (b *box) leave() *box {
	gone := b.d.newBox(functions.InstanceID(b.sid), "", 0)
	gone.own, gone.keeper, gone.gvisor = b.own, b.keeper, b.gvisor
	b.own, b.keeper, b.gvisor = false, "", false
	b.mu.Lock()
	gone.ids, b.ids = b.ids, 0
	gone.process, gone.netns, gone.ear = b.process, b.netns, b.ear
	b.process, b.netns, b.ear = nil, nil, nil
	b.dropBoostLocked()
	b.mu.Unlock()
	b.carry(string(b.info.ID))
	b.info.PID, b.function = 0, nil
	return gone
}
