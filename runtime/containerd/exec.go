//go:build linux

package containerd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/fifo"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/tatami-faas/tatami/internal/fault"
)

// beginTime bounds the start of a further process.
const beginTime = 30 * time.Second

// Exec runs a further process in the sandbox and returns its exit code.
func (b *box) Exec(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) (_ int, err error) {
	d := b.d
	ctx, err = d.await(ctx)
	if err != nil {
		return 0, err
	}
	if len(args) == 0 {
		return 0, fault.New(fault.CodeInvalidRequest, "there is no command to run")
	}
	if b.ended() {
		return 0, fault.New(fault.CodeUnavailable, "the sandbox %s does not run", b.info.ID)
	}
	if b.own {
		return b.execOwn(ctx, args, stdin, stdout, stderr)
	}
	process, err := d.processSpec(ctx, b, args)
	if err != nil {
		return 0, err
	}

	streams, err := openStreams(ctx, d.cfg.fifoRoot(), stdin, stdout, stderr)
	if err != nil {
		return 0, fmt.Errorf("exec in %s: %w", b.info.ID, err)
	}
	defer streams.close()

	id, execID := b.sid, "exec-"+rand.Text()
	svc := d.client.TaskService()
	if _, err := svc.Exec(ctx, &tasks.ExecProcessRequest{
		ContainerID: id, ExecID: execID, Spec: process, Stdin: streams.stdin, Stdout: streams.stdout, Stderr: streams.stderr,
	}); err != nil {
		return 0, execFault(ctx, args[0], err)
	}
	late := context.WithoutCancel(ctx)
	defer func() {
		if b.gvisor {
			b.forgetGuest(execID)
		}
		_, derr := svc.DeleteProcess(late, &tasks.DeleteProcessRequest{ContainerID: id, ExecID: execID})
		if derr != nil && !isNotFound(derr) && err == nil {
			err = fmt.Errorf("exec in %s: %w", id, derr)
		}
	}()
	if err := b.begin(late, execID); err != nil {
		return 0, execFault(ctx, args[0], err)
	}
	if stdin != nil {
		// Once our side is closed the process must read the end of its input: the shim holds a write end too.
		streams.inputDone = func() {
			_, _ = svc.CloseIO(late, &tasks.CloseIORequest{ContainerID: id, ExecID: execID, Stdin: true})
		}
	}
	streams.copyAll()

	r, err := svc.Wait(ctx, &tasks.WaitRequest{ContainerID: id, ExecID: execID})
	if err != nil {
		b.giveUp(late, execID)
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		return 0, fmt.Errorf("exec in %s: %w", id, err)
	}
	streams.drain()
	return int(r.ExitStatus), nil
}

// begin starts a process of Exec's. It does not end with the caller's context: an OCI runtime that is killed while it starts a process may leave
// that to run, and nobody would know which it is.
func (b *box) begin(ctx context.Context, execID string) error {
	ctx, cancel := context.WithTimeout(ctx, beginTime)
	defer cancel()
	_, err := b.d.client.TaskService().Start(ctx, &tasks.StartRequest{ContainerID: b.sid, ExecID: execID})
	return err
}

// giveUp ends a process of Exec's that has begun, and returns when it has ended.
func (b *box) giveUp(ctx context.Context, execID string) {
	svc := b.d.client.TaskService()
	ended := func() error {
		limited, cancel := context.WithTimeout(ctx, killTime)
		defer cancel()
		_, err := svc.Wait(limited, &tasks.WaitRequest{ContainerID: b.sid, ExecID: execID})
		return err
	}
	// What the shim takes for the process ends with the one in the sandbox, and must not end before.
	if b.gvisor && b.killGuest(ctx, execID) == nil && ended() == nil {
		return
	}
	_, _ = svc.Kill(ctx, &tasks.KillRequest{ContainerID: b.sid, ExecID: execID, Signal: uint32(unix.SIGKILL)})
	_ = ended()
}

// processSpec is the function's own process with other arguments.
func (d *Driver) processSpec(ctx context.Context, b *box, args []string) (*anypb.Any, error) {
	if b.function != nil {
		process := *b.function
		process.Args = args
		return typeurl.MarshalAnyToProto(&process)
	}
	c, err := d.client.ContainerService().Get(ctx, b.sid)
	if err != nil {
		if isNotFound(err) {
			return nil, fault.New(fault.CodeNotFound, "the sandbox %s is gone", b.info.ID)
		}
		return nil, err
	}
	v, err := typeurl.UnmarshalAny(c.Spec)
	if err != nil {
		return nil, err
	}
	spec, ok := v.(*specs.Spec)
	if !ok || spec.Process == nil {
		return nil, fmt.Errorf("the container %s has a specification of type %T", b.info.ID, v)
	}
	spec.Process.Args = args
	return typeurl.MarshalAnyToProto(spec.Process)
}

// streams are the FIFOs between us and the shim.
type streams struct {
	dir                   string
	stdin, stdout, stderr string
	in                    io.WriteCloser
	out, err              io.ReadCloser
	reader                io.Reader
	outTo, errTo          io.Writer
	inputDone             func()
	output                sync.WaitGroup
}

func openStreams(ctx context.Context, root string, stdin io.Reader, stdout, stderr io.Writer) (_ *streams, err error) {
	dir, err := os.MkdirTemp(root, "exec-")
	if err != nil {
		return nil, err
	}
	s := &streams{dir: dir, reader: stdin, outTo: stdout, errTo: stderr}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	// The FIFOs are opened without waiting for the shim's side; the opened ends outlive ctx until close.
	ctx = context.WithoutCancel(ctx)
	open := func(name string, flags int) (string, io.ReadWriteCloser, error) {
		path := filepath.Join(dir, name)
		f, err := fifo.OpenFifo(ctx, path, flags|unix.O_CREAT|unix.O_NONBLOCK, 0o700)
		return path, f, err
	}
	if stdin != nil {
		if s.stdin, s.in, err = open("stdin", unix.O_WRONLY); err != nil {
			return nil, err
		}
	}
	if s.stdout, s.out, err = open("stdout", unix.O_RDONLY); err != nil {
		return nil, err
	}
	if s.stderr, s.err, err = open("stderr", unix.O_RDONLY); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *streams) copyAll() {
	copyTo := func(w io.Writer, r io.Reader) {
		if w == nil {
			w = io.Discard
		}
		if _, err := io.Copy(w, r); err != nil {
			// The process must not block on output that its reader no longer takes.
			_, _ = io.Copy(io.Discard, r)
		}
	}
	s.output.Go(func() { copyTo(s.outTo, s.out) })
	s.output.Go(func() { copyTo(s.errTo, s.err) })
	if s.in != nil {
		// Not waited for: the reader may block for ever, and its end is the caller's.
		go func() {
			_, _ = io.Copy(s.in, s.reader)
			_ = s.in.Close()
			s.inputDone()
		}()
	}
}

// drain waits until the output has been read to its end.
func (s *streams) drain() { s.output.Wait() }

func (s *streams) close() {
	if s.in != nil {
		_ = s.in.Close()
	}
	for _, c := range []io.Closer{s.out, s.err} {
		if c != nil {
			_ = c.Close()
		}
	}
	s.output.Wait()
	_ = os.RemoveAll(s.dir)
}

// execFault tells what the caller did from what the platform did. An end of ctx comes from the shim as words only.
func execFault(ctx context.Context, name string, err error) error {
	if ctx.Err() != nil {
		return errors.Join(ctx.Err(), err)
	}
	// The shim has the same deadline, and may be the first to see it pass.
	if _, ok := ctx.Deadline(); ok && strings.HasSuffix(err.Error(), context.DeadlineExceeded.Error()) {
		return errors.Join(context.DeadlineExceeded, err)
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if isNotFound(err) {
		return fault.New(fault.CodeUnavailable, "the sandbox does not run any more")
	}
	if why, ok := whyNotStarted(err); ok {
		return cannotRun(name, why)
	}
	return fmt.Errorf("run %s in the sandbox: %w", name, err)
}

func cannotRun(name, why string) error {
	return fault.New(fault.CodeInvalidRequest, "%s cannot be run in the sandbox: %s", name, strings.TrimPrefix(why, "exec: ")).WithField("args").
		WithHint("name a program that the image holds; an image of one static binary holds no shell")
}
