//go:build linux

package containerd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/runtime/sandbox"
)

var _ sandbox.Sandbox = (*box)(nil)

const (
	// unknownExit is the code of a process whose end nobody saw.
	unknownExit = 255
	killedExit  = 128 + int(unix.SIGKILL)
	// killTime bounds the wait for a process that was sent SIGKILL.
	killTime = 10 * time.Second
)

// box is one sandbox.
type box struct {
	d    *Driver
	info sandbox.Info
	// sid is the id that everything of the sandbox carries: container, cgroup, files. It is the instance's, but for a sandbox that was made
	// ahead. It does not change once Create has returned.
	sid    string
	digest string
	port   int
	// own says that it is no container but of our own making; keeper is the socket of its keeper then.
	own    bool
	keeper string
	// slower is the kind of reason why it was not started in the fastest way.
	slower string
	// gvisor says that gVisor's kernel answers its system calls.
	gvisor bool
	// listens is its artifact's; nil where that is not known.
	listens *listenTime
	// made and stopping are guarded by the driver's lock: made says that the sandbox is listed, stopping that its removal has begun.
	made, stopping bool
	done           chan struct{}
	endOnce        sync.Once
	exit           functions.Exit
	// ids is the first host id of the sandbox's user namespace; 0: it has none.
	ids uint32
	// turn is held by the one Stop that works.
	turn chan struct{}

	// serves says that a connection was made.
	serves atomic.Bool

	mu sync.Mutex
	// limit is what the processors are to be limited to after the start, when boost ends; nil where that is so.
	limit *specs.LinuxCPU
	boost *time.Timer
	// settle says that the start is over; nil where nobody asks.
	settle func()
	// first waits for the function's first caller until firstEnd; nil where none does.
	first    net.Conn
	firstEnd *time.Timer
	// netns and process keep the network namespace and the process's identity; nil when it does not run.
	netns, process *os.File
	// ear hears of its processes since before there was a function; nil: none does, or it is used.
	ear *ear
	// killed says that we sent SIGKILL.
	killed, removed bool
	// function is the process that Exec starts others like; nil where the container's own specification has it.
	function *specs.Process
}

func (d *Driver) newBox(id functions.InstanceID, digest string, port int) *box {
	b := &box{d: d, digest: digest, port: port, done: make(chan struct{}), turn: make(chan struct{}, 1)}
	b.info.ID = id
	b.carry(string(id))
	return b
}

// carry says by which id everything of the sandbox is found.
func (b *box) carry(sid string) {
	b.sid = sid
	b.info.Stdout, b.info.Stderr = b.d.cfg.stdout(sid), b.d.cfg.stderr(sid)
}

// Info describes the sandbox.
func (b *box) Info() sandbox.Info {
	info := b.info
	select {
	case <-b.done:
		info.PID = 0
	default:
	}
	return info
}

// Done is closed once the process has ended.
func (b *box) Done() <-chan struct{} { return b.done }

// Exit is how the process ended.
func (b *box) Exit() functions.Exit {
	<-b.done
	return b.exit
}

// hold opens what belongs to the process, so that neither its number nor its namespace can come to mean another.
func (b *box) hold(pid int) error {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return os.NewSyscallError("pidfd_open", err)
	}
	process := os.NewFile(uintptr(fd), "process")
	netns, err := os.Open("/proc/" + strconv.Itoa(pid) + "/ns/net")
	if err != nil {
		process.Close()
		return err
	}
	b.mu.Lock()
	b.process, b.netns = process, netns
	b.mu.Unlock()
	b.info.PID = pid
	return nil
}

// release closes what hold opened.
func (b *box) release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dropBoostLocked()
	b.dropFirstLocked()
	for _, f := range []*os.File{b.process, b.netns} {
		if f != nil {
			f.Close()
		}
	}
	b.ear.close()
	b.process, b.netns, b.ear = nil, nil, nil
}

// signal reaches the very process that was held; one that has ended is no error.
func (b *box) signal(sig unix.Signal) error {
	b.mu.Lock()
	process := b.process
	if sig == unix.SIGKILL {
		b.killed = true
	}
	b.mu.Unlock()
	if process == nil {
		return nil
	}
	raw, err := process.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	if err := raw.Control(func(fd uintptr) { sent = unix.PidfdSendSignal(int(fd), sig, nil, 0) }); err != nil {
		return err
	}
	if errors.Is(sent, unix.ESRCH) {
		return nil
	}
	return os.NewSyscallError("pidfd_send_signal", sent)
}

// Dial connects to the function's port inside the sandbox.
func (b *box) Dial(ctx context.Context) (net.Conn, error) {
	if ctx.Err() == nil {
		if conn := b.takeFirst(); conn != nil {
			return conn, nil
		}
	}
	b.mu.Lock()
	netns := b.netns
	b.mu.Unlock()
	if netns == nil {
		return nil, fault.New(fault.CodeUnavailable, "the sandbox %s does not run", b.info.ID)
	}
	conn, err := b.d.sockets.dial(ctx, netns, b.port)
	if err == nil {
		b.served()
	}
	return conn, err
}

// Stats reads the cgroup's account.
func (b *box) Stats(context.Context) (functions.Usage, error) {
	u, err := b.d.cgroup.usage(b.sid)
	if errors.Is(err, os.ErrNotExist) {
		return u, fault.New(fault.CodeNotFound, "the sandbox %s has no cgroup any more", b.info.ID)
	}
	return u, err
}

// end says with which code the process ended; the first call counts.
func (b *box) end(code int) {
	if b.ended() {
		return
	}
	b.mu.Lock()
	killed := b.killed
	b.mu.Unlock()
	// A child that the kernel killed does not make an end of the init an end by memory, and neither does our own signal.
	oom := code == killedExit && !killed && b.d.cgroup.oomKills(b.sid) > 0
	b.endAs(functions.Exit{Code: code, OOM: oom})
}

func (b *box) endAs(exit functions.Exit) {
	b.endOnce.Do(func() {
		b.exit = exit
		close(b.done)
	})
}

// watch closes Done when the process ends. It asks for the process's state where the wait itself fails: events may be missed.
func (d *Driver) watch(b *box) {
	d.background(func() {
		ctx := d.scope(d.ctx)
		id := b.sid
		for {
			r, err := d.client.TaskService().Wait(ctx, &tasks.WaitRequest{ContainerID: id})
			if ctx.Err() != nil {
				return
			}
			if err == nil {
				b.end(int(r.ExitStatus))
				return
			}
			running, code, serr := d.state(ctx, id)
			if ctx.Err() != nil {
				return
			}
			if serr == nil && !running {
				if code == unknownExit {
					// The shim is gone; what it watched must not go on unwatched.
					d.log.Warn("the shim of a sandbox has ended", "inst", b.info.ID, "err", err)
					d.cgroup.kill(id)
				}
				b.end(code)
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	})
}

// state reads whether the task's process runs, or how it ended: with unknownExit where nobody knows.
func (d *Driver) state(ctx context.Context, id string) (running bool, code int, err error) {
	r, err := d.client.TaskService().Get(ctx, &tasks.GetRequest{ContainerID: id})
	if err != nil {
		if isNotFound(err) {
			return false, unknownExit, nil
		}
		return false, 0, err
	}
	switch r.Process.Status {
	case task.Status_RUNNING, task.Status_PAUSED, task.Status_PAUSING:
		return true, 0, nil
	case task.Status_STOPPED:
		return false, int(r.Process.ExitStatus), nil
	case task.Status_CREATED:
		// Its maker died before it could start it.
		return false, unknownExit, nil
	}
	return false, 0, fmt.Errorf("task %s: status %s", id, r.Process.Status)
}

// ignoresTerm reports whether the kernel drops SIGTERM for the process: the first of a pid namespace gets only what it has a handler for.
// An explicit ignore is taken as a wish to be given the grace.
func (b *box) ignoresTerm() bool {
	status, err := os.ReadFile("/proc/" + strconv.Itoa(b.info.PID) + "/status")
	if err != nil {
		return false
	}
	const bit = 1 << (uint(unix.SIGTERM) - 1)
	for line := range strings.Lines(string(status)) {
		for _, field := range []string{"SigCgt:", "SigIgn:"} {
			if v, ok := strings.CutPrefix(line, field); ok {
				set, err := strconv.ParseUint(strings.TrimSpace(v), 16, 64)
				if err != nil || set&bit != 0 {
					return false
				}
			}
		}
	}
	return true
}

func isNotFound(err error) bool {
	return errdefs.IsNotFound(err) || errdefs.IsNotFound(toNative(err))
}
