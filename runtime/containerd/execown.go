//go:build linux

package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"

	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/runtime/attach"
	"github.com/tatami-faas/tatami/runtime/attach/wire"
)

// pipes are a further process's standard descriptors: theirs, and our ends of them.
type pipes struct {
	theirs   [3]*os.File
	in       *os.File
	out, err *os.File
}

func openPipes(stdin bool, uid, gid int) (_ *pipes, err error) {
	p := &pipes{}
	defer func() {
		if err != nil {
			p.closeTheirs()
			p.closeOurs()
		}
	}()
	if !stdin {
		p.theirs[0], err = os.Open(os.DevNull)
	} else {
		p.theirs[0], p.in, err = os.Pipe()
	}
	if err != nil {
		return nil, err
	}
	if p.out, p.theirs[1], err = os.Pipe(); err != nil {
		return nil, err
	}
	if p.err, p.theirs[2], err = os.Pipe(); err != nil {
		return nil, err
	}
	// The process may open /dev/stdout again: the pipe must be its own.
	for _, f := range []*os.File{p.theirs[1], p.theirs[2]} {
		if err := f.Chown(uid, gid); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (p *pipes) closeTheirs() {
	for _, f := range p.theirs {
		if f != nil {
			f.Close()
		}
	}
}

func (p *pipes) closeOurs() {
	for _, f := range []*os.File{p.in, p.out, p.err} {
		if f != nil {
			f.Close()
		}
	}
}

// execOwn is Exec in a sandbox of our own making: the process is a child of this one, in the sandbox's namespaces and cgroup.
func (b *box) execOwn(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) (int, error) {
	user := b.function.User
	p, err := openPipes(stdin != nil, int(b.ids+user.UID), int(b.ids+user.GID))
	if err != nil {
		return 0, fmt.Errorf("exec in %s: %w", b.info.ID, err)
	}
	defer p.closeOurs()
	child, err := b.startOwn(ctx, args, p)
	p.closeTheirs()
	if err != nil {
		return 0, err
	}
	var output sync.WaitGroup
	copyTo := func(w io.Writer, r io.Reader) {
		if w == nil {
			w = io.Discard
		}
		if _, err := io.Copy(w, r); err != nil {
			// The process must not block on output that its reader no longer takes.
			_, _ = io.Copy(io.Discard, r)
		}
	}
	output.Go(func() { copyTo(stdout, p.out) })
	output.Go(func() { copyTo(stderr, p.err) })
	if stdin != nil {
		// Not waited for: the reader may block for ever, and its end is the caller's.
		go func() {
			_, _ = io.Copy(p.in, stdin)
			p.in.Close()
		}()
	}
	stop := context.AfterFunc(ctx, func() { _ = child.Kill() })
	state, err := child.Wait()
	if !stop() && ctx.Err() != nil {
		return 0, ctx.Err()
	}
	if err != nil {
		return 0, fmt.Errorf("exec in %s: %w", b.info.ID, err)
	}
	output.Wait()
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return state.ExitCode(), nil
}

// startOwn starts the process. What cannot be run is the caller's fault.
func (b *box) startOwn(ctx context.Context, args []string, p *pipes) (_ *os.Process, err error) {
	d := b.d
	program, err := d.keepers.init()
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	process := b.process
	b.mu.Unlock()
	if process == nil {
		return nil, fault.New(fault.CodeUnavailable, "the sandbox %s does not run", b.info.ID)
	}
	request := wire.Request{
		UID: b.function.User.UID, GID: b.function.User.GID, Groups: b.function.User.AdditionalGids, Cwd: b.function.Cwd, Args: args, Env: b.function.Env,
	}
	var users *os.File
	if b.ids != 0 {
		request.Keep = rootKeeps()
		if users, err = os.Open(filepath.Join("/proc", strconv.Itoa(b.info.PID), "ns/user")); err != nil {
			return nil, fault.Wrap(fault.CodeUnavailable, err, "the sandbox %s has ended", b.info.ID)
		}
		defer users.Close()
	}
	raw, err := request.Encode()
	if err != nil {
		return nil, fault.New(fault.CodeInvalidRequest, "%s", err).WithField("args")
	}
	s, err := d.confinement(b.ids != 0)
	if err != nil {
		return nil, err
	}
	s.Steps = sessionSteps(b.sid)
	setup, err := s.Encode()
	if err != nil {
		return nil, err
	}
	child, conn, err := attach.Join(program, process, p.theirs, users)
	if err != nil {
		return nil, fault.Wrap(fault.CodeUnavailable, err, "the sandbox %s cannot be entered", b.info.ID)
	}
	defer conn.Close()
	defer func() {
		if err != nil {
			_ = child.Kill()
			_, _ = child.Wait()
		}
	}()
	if err := prepareProcess(child.Pid, b.function); err != nil {
		return nil, err
	}
	if err := d.cgroup.enter(b.sid, child.Pid); err != nil {
		return nil, fault.Wrap(fault.CodeUnavailable, err, "the sandbox %s has ended", b.info.ID)
	}
	if err := attach.SetUp(ctx, conn, setup); err != nil {
		return nil, fmt.Errorf("exec in %s: %w", b.info.ID, err)
	}
	err = attach.Send(ctx, conn, raw)
	if refused, ok := errors.AsType[*attach.RefusedError](err); ok {
		return nil, cannotRun(args[0], refused.Why)
	}
	return child, err
}
