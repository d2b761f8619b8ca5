//go:build linux

package containerd

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/runtime/attach"
	"github.com/tatami-faas/tatami/runtime/sandbox"
)

const (
	initPath   = "/init"
	socketPath = "/ctl"
	// spareMemory and sparePIDs bound a waiting sandbox.
	spareMemory = 16 * functions.MiB
	sparePIDs   = 32
	// spareScratch is more than the few small files that a waiting sandbox's tmpfs has.
	spareScratch = 256 * functions.KiB
	// spareTime bounds the making of a waiting sandbox.
	spareTime = 30 * time.Second
)

// spare is a sandbox that waits for its function.
type spare struct {
	box   *box
	conn  *net.UnixConn
	place attach.Place
	// watched is closed when the watch over the connection has ended.
	watched chan struct{}
}

// close gives back what belongs to the waiting; the sandbox stays.
func (s *spare) close() {
	if s.conn != nil {
		s.conn.Close()
	}
	for _, f := range []*os.File{s.place.Mount, s.place.UTS} {
		if f != nil {
			f.Close()
		}
	}
}

// watch reports, once, that the init has ended. stopWatch ends it.
func (s *spare) watch(gone func()) {
	defer close(s.watched)
	raw, err := s.conn.SyscallConn()
	if err != nil {
		gone()
		return
	}
	err = raw.Read(func(fd uintptr) bool {
		_, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
		// Whatever can be read, or the end, is unexpected now.
		return !errors.Is(err, unix.EAGAIN)
	})
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		gone()
	}
}

func (s *spare) stopWatch() error {
	if err := s.conn.SetReadDeadline(time.Unix(1, 0)); err != nil {
		return err
	}
	<-s.watched
	return s.conn.SetReadDeadline(time.Time{})
}

// makeSpare makes a sandbox as for a function, with the waiting init in its place.
func (d *Driver) makeSpare(ctx context.Context, root string) (_ *spare, err error) {
	ctx, cancel := context.WithTimeout(ctx, spareTime)
	defer cancel()
	id := functions.NewInstanceID()
	s := &spare{box: d.newBox(id, "", 0), watched: make(chan struct{})}
	defer func() {
		if err != nil {
			s.close()
			d.discard(context.WithoutCancel(ctx), s.box)
		}
	}()
	sc := d.scratch(s.box.sid)
	spec, err := d.spareSpec(id, sc)
	if err != nil {
		return nil, err
	}
	var control *net.UnixListener
	defer func() {
		if control != nil {
			control.Close()
		}
	}()
	if err := d.createTask(ctx, s.box, plan{
		labels: map[string]string{labelPool: "true"}, spec: spec,
		root: &types.Mount{Type: "bind", Source: root, Options: []string{"rbind", "ro", "nosuid", "nodev"}},
		files: func() (err error) {
			if err := sc.make(functions.Limits{Ephemeral: spareScratch}, names{spec.Hostname, noNameservers}); err != nil {
				return err
			}
			control, err = net.ListenUnix("unix", &net.UnixAddr{Name: sc.file("ctl"), Net: "unix"})
			return err
		},
	}); err != nil {
		return nil, err
	}
	if _, err := d.client.TaskService().Start(ctx, &tasks.StartRequest{ContainerID: s.box.sid}); err != nil {
		return nil, err
	}
	return s, s.meet(ctx, control)
}

// meet waits for the init, and opens what an attach will need.
func (s *spare) meet(ctx context.Context, control *net.UnixListener) (err error) {
	stop := context.AfterFunc(ctx, func() { _ = control.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if s.conn, err = control.AcceptUnix(); err != nil {
		return fmt.Errorf("the init of a waiting sandbox does not answer: %w", errors.Join(ctx.Err(), err))
	}
	if err := attach.Await(ctx, s.conn); err != nil {
		return err
	}
	ns := filepath.Join("/proc", strconv.Itoa(s.box.info.PID), "ns")
	if s.place.Mount, err = os.Open(filepath.Join(ns, "mnt")); err != nil {
		return err
	}
	s.place.UTS, err = os.Open(filepath.Join(ns, "uts"))
	return err
}

// spareSpec is a function's specification with another process: everything that the function finds around it is the same.
func (d *Driver) spareSpec(id functions.InstanceID, sc scratch) (*specs.Spec, error) {
	art := &artifact{image: sandbox.Image{Entrypoint: []string{initPath}}}
	spec, err := d.ociSpec(art, sandbox.Spec{
		ID: id, ReadOnlyRoot: true, Limits: functions.Limits{Memory: spareMemory, PIDs: sparePIDs},
	}, sc)
	if err != nil {
		return nil, err
	}
	// A function's limit could not be set while one for memory and swap together is below it.
	spec.Linux.Resources.Memory.Swap = nil
	// What becoming another user takes. The init gives them up, and the right to ever have them.
	caps := []string{"CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"}
	spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
	spec.Process.User = specs.User{}
	// One thread that works, and a collector that never has to.
	spec.Process.Env = []string{"GOMAXPROCS=1", "GOGC=off"}
	spec.Mounts = append(spec.Mounts, specs.Mount{
		Destination: socketPath, Type: "bind", Source: sc.file("ctl"), Options: []string{"bind", "nosuid", "nodev", "noexec"},
	})
	return spec, nil
}

// poolRoot makes the root of all waiting sandboxes and returns its path. Its name tells its content, so what is there is complete and right.
func (d *Driver) poolRoot() (string, error) {
	program, err := attach.Init()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(program)
	name := hex.EncodeToString(sum[:8])
	root := filepath.Join(d.cfg.poolRoots(), name)
	// No sandbox waits in the root of an earlier program any more.
	if others, err := os.ReadDir(d.cfg.poolRoots()); err == nil {
		for _, o := range others {
			if o.Name() != name {
				_ = os.RemoveAll(filepath.Join(d.cfg.poolRoots(), o.Name()))
			}
		}
	}
	if _, err := os.Stat(root); err == nil {
		return root, nil
	}
	if err := os.MkdirAll(d.cfg.poolRoots(), 0o700); err != nil {
		return "", err
	}
	next, err := os.MkdirTemp(d.cfg.poolRoots(), "new-")
	if err != nil {
		return "", err
	}
	if err := fillRoot(next, program); err != nil {
		_ = os.RemoveAll(next)
		return "", err
	}
	return root, os.Rename(next, root)
}

// fillRoot writes the init and the places of the mounts.
func fillRoot(next string, program []byte) error {
	dirs, files := points(mounts(""))
	for _, dir := range append(dirs, attach.NewRootDir, "/etc") {
		if err := os.MkdirAll(filepath.Join(next, dir), 0o755); err != nil {
			return err
		}
	}
	for _, file := range append(files, socketPath) {
		if err := os.WriteFile(filepath.Join(next, file), nil, 0o644); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(next, initPath), program, 0o755); err != nil {
		return err
	}
	return os.Chmod(next, 0o755)
}
