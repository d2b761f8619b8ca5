//go:build linux

package containerd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/runtime/attach"
	"github.com/tatami-faas/tatami/runtime/attach/wire"
	"github.com/tatami-faas/tatami/runtime/sandbox"
)

const (
	// spareMemory and sparePIDs bound a waiting sandbox.
	spareMemory = 16 * functions.MiB
	sparePIDs   = 32
	// spareCPU makes the making of a waiting sandbox give way to every function; urgentCPU is for one that the next starts wait for.
	spareCPU  = 2
	urgentCPU = 1024
	// spareScratch is more than the few small files that a waiting sandbox's tmpfs has.
	spareScratch = 256 * functions.KiB
	// spareTime bounds the making of a waiting sandbox.
	spareTime = 30 * time.Second
)

// spare is a sandbox that waits for its function.
type spare struct {
	box  *box
	conn *net.UnixConn
	// users is the sandbox's user namespace, for mounts that are to show files by its ids; nil: it has none.
	users *os.File
	// linked says that it has a link to the internet.
	linked bool
	// watched is closed when the watch over the connection has ended.
	watched chan struct{}
}

// close gives back what belongs to the waiting; the sandbox stays.
func (s *spare) close() {
	if s.conn != nil {
		s.conn.Close()
	}
	if s.users != nil {
		s.users.Close()
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

// makeSpare makes a sandbox as the OCI runtime would for a function, with the init waiting in its place; mapped with a user namespace.
// An urgent one does not give way to functions.
func (d *Driver) makeSpare(ctx context.Context, root string, mapped, urgent bool) (_ *spare, err error) {
	ctx, cancel := context.WithTimeout(ctx, spareTime)
	defer cancel()
	id := functions.NewInstanceID()
	s := &spare{box: d.newBox(id, "", 0), watched: make(chan struct{})}
	b, sid := s.box, s.box.sid
	b.own = true
	defer func() {
		if err != nil {
			s.close()
			d.discard(context.WithoutCancel(ctx), b)
		}
	}()
	sc := d.scratch(sid)
	spec, err := d.spareSpec(id, sc, urgent)
	if err != nil {
		return nil, err
	}
	if mapped {
		if b.ids, err = d.ids.take(); err != nil {
			return nil, err
		}
	}
	outer, inner, err := d.setup(sid, spec, root, b.ids)
	if err != nil {
		return nil, err
	}
	if err := d.ownFiles(b); err != nil {
		return nil, err
	}
	if err := sc.make(functions.Limits{Ephemeral: spareScratch}, names{spec.Hostname, noNameservers}); err != nil {
		return nil, err
	}
	if mapped {
		if err := sc.give(b.ids); err != nil {
			return nil, err
		}
	}
	if err := d.cgroup.make(sid, spec.Linux.Resources); err != nil {
		return nil, err
	}
	if err := d.spawn(ctx, s, spec); err != nil {
		return nil, err
	}
	if mapped {
		if err := s.enterUsers(ctx, outer); err != nil {
			return nil, err
		}
	}
	if err := attach.SetUp(ctx, s.conn, inner); err != nil {
		return nil, err
	}
	b.ear, err = b.newEar(ctx, b.netns)
	return s, err
}

// enterUsers has the init set its sandbox up as the node's root, make a user namespace, and gives that one its users.
func (s *spare) enterUsers(ctx context.Context, setup []byte) (err error) {
	if err := attach.EnterUsers(ctx, s.conn, setup); err != nil {
		return err
	}
	dir := filepath.Join("/proc", strconv.Itoa(s.box.info.PID))
	for _, file := range []string{"uid_map", "gid_map"} {
		if err := os.WriteFile(filepath.Join(dir, file), fmt.Appendf(nil, "0 %d %d", s.box.ids, idsEach), 0); err != nil {
			return fmt.Errorf("give the user namespace its users: %w", err)
		}
	}
	s.users, err = os.Open(filepath.Join(dir, "ns/user"))
	return err
}

// spawn has the keeper start the init, and puts it where it belongs: it has done nothing yet.
func (d *Driver) spawn(ctx context.Context, s *spare, spec *specs.Spec) error {
	b := s.box
	keeper, path, err := d.keepers.current()
	if err != nil {
		return err
	}
	b.keeper = path
	group, err := d.cgroup.open(b.sid)
	if err != nil {
		return err
	}
	if group != nil {
		defer group.Close()
	}
	pid, conn, err := keeper.Spawn(ctx, wire.Spawn{ID: b.sid, Stdout: b.info.Stdout, Stderr: b.info.Stderr, Exit: d.cfg.exit(b.sid)}, group)
	if err != nil {
		return err
	}
	s.conn = conn
	if err := b.hold(pid); err != nil {
		return err
	}
	if err := prepareProcess(pid, spec.Process); err != nil {
		return err
	}
	if group != nil {
		return nil
	}
	return d.cgroup.enter(b.sid, pid)
}

// spareSpec is a function's specification with another process: everything that the function finds around it is the same.
func (d *Driver) spareSpec(id functions.InstanceID, sc scratch, urgent bool) (*specs.Spec, error) {
	art := &artifact{image: sandbox.Image{Entrypoint: []string{"init"}}}
	spec, err := d.ociSpec(art, sandbox.Spec{ID: id, Limits: functions.Limits{CPU: 1000, Memory: spareMemory, PIDs: sparePIDs}}, sc)
	if err != nil {
		return nil, err
	}
	// A function's limit could not be set while one for memory and swap together is below it.
	spec.Linux.Resources.Memory.Swap = nil
	shares := uint64(spareCPU)
	if urgent {
		shares = urgentCPU
	}
	spec.Linux.Resources.CPU = &specs.LinuxCPU{Shares: &shares}
	return spec, nil
}
