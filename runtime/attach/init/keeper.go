//go:build linux

package main

import (
	"strconv"
	"syscall"
	"unsafe"

	"github.com/tatami-faas/tatami/runtime/attach/wire"
)

// The keeper is the parent of all inits: it outlives the worker, writes their output and their exit statuses down, and ends when it has no
// child and no worker is connected. One thread does everything, whenever something can be read.

const (
	// keeperListener and keeperClient are descriptors that it starts with: where workers connect, and the worker that started it.
	keeperListener = 3
	keeperClient   = 4

	sysPidfdOpen   = 434
	clockMonotonic = 1
	readSize       = 64 << 10
	maxEvents      = 64
	killedBase     = 128
	openFiles      = 1 << 19
	// patience is how long, in milliseconds, what is written after as long a silence waits to be written down: a function that starts writes, too, and
	// has the processors first.
	patience = 10
	// none stands for a descriptor that a new process does not get.
	none = ^uintptr(0)
)

// keeper is its state: what each descriptor that it waits for is.
type keeper struct {
	epoll   int
	null    int
	clients map[int]bool
	outputs map[int]*output
	// late are the outputs that wait, the first one until due, a time of the kernel's clock in milliseconds.
	late []*output
	due  int64
	// children are found by the descriptors of their processes.
	children map[int]*child
	buffer   []byte
}

type child struct {
	pid     int
	exit    string
	outputs [2]*output
}

// output is a pipe that a process writes to, and the file, opened when there is something to write. Once it has ended the descriptor's
// number may be another's.
type output struct {
	fd    int
	path  string
	file  int
	ended bool
	// last is when something of it was last written down.
	last int64
}

func keep(path string) {
	_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: openFiles, Max: openFiles})
	syscall.Umask(0o022)
	k := keeper{
		clients: map[int]bool{}, outputs: map[int]*output{}, children: map[int]*child{}, buffer: make([]byte, readSize),
	}
	var err error
	if k.null, err = syscall.Open("/dev/null", syscall.O_RDWR|syscall.O_CLOEXEC, 0); err != nil {
		syscall.Exit(exitImpossible)
	}
	if k.epoll, err = syscall.EpollCreate1(syscall.EPOLL_CLOEXEC); err != nil {
		syscall.Exit(exitImpossible)
	}
	syscall.CloseOnExec(keeperListener)
	syscall.CloseOnExec(keeperClient)
	if !k.await(keeperListener) {
		syscall.Exit(exitImpossible)
	}
	k.welcome(keeperClient)
	events := make([]syscall.EpollEvent, maxEvents)
	for len(k.clients)+len(k.children) > 0 {
		n, err := syscall.EpollWait(k.epoll, events, k.pause())
		if err != nil && err != syscall.EINTR {
			syscall.Exit(exitImpossible)
		}
		for i := range max(n, 0) {
			k.serve(int(events[i].Fd))
		}
		k.copyLate()
	}
	_ = syscall.Unlink(path)
}

func (k *keeper) await(fd int) bool {
	return syscall.EpollCtl(k.epoll, syscall.EPOLL_CTL_ADD, fd, &syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(fd)}) == nil
}

// serve looks what the descriptor is. One that was closed meanwhile is nothing any more.
func (k *keeper) serve(fd int) {
	switch {
	case fd == keeperListener:
		if client, _, err := syscall.Accept4(fd, syscall.SOCK_CLOEXEC); err == nil {
			k.welcome(client)
		}
	case k.clients[fd]:
		k.request(fd)
	case k.outputs[fd] != nil:
		k.hear(k.outputs[fd])
	case k.children[fd] != nil:
		k.reap(fd)
	}
}

func (k *keeper) welcome(fd int) {
	if k.await(fd) && syscall.Sendto(fd, []byte(wire.KeeperHello), syscall.MSG_NOSIGNAL, nil) == nil {
		k.clients[fd] = true
		return
	}
	syscall.Close(fd)
}

// request does what one packet asks for.
func (k *keeper) request(client int) {
	packet, rights := make([]byte, wire.MaxSpawn), make([]byte, syscall.CmsgSpace(2*4))
	n, rn, _, _, err := syscall.Recvmsg(client, packet, rights, syscall.MSG_CMSG_CLOEXEC)
	if err == syscall.EINTR || err == syscall.EAGAIN {
		return
	}
	if err != nil || n == 0 {
		delete(k.clients, client)
		syscall.Close(client)
		return
	}
	fds := descriptors(rights[:rn])
	defer func() {
		for _, fd := range fds {
			syscall.Close(fd)
		}
	}()
	var answer wire.Spawned
	if s, err := wire.DecodeSpawn(packet[:n]); err != nil {
		answer.Why = err.Error()
	} else {
		answer = k.spawn(&s, fds)
	}
	_ = syscall.Sendto(client, answer.Encode(), syscall.MSG_NOSIGNAL, nil)
}

func descriptors(rights []byte) []int {
	messages, err := syscall.ParseSocketControlMessage(rights)
	if err != nil {
		return nil
	}
	var out []int
	for i := range messages {
		if fds, err := syscall.ParseUnixRights(&messages[i]); err == nil {
			out = append(out, fds...)
		}
	}
	return out
}

// spawn starts a process in new namespaces, that waits for its setup.
func (k *keeper) spawn(s *wire.Spawn, fds []int) wire.Spawned {
	want := 1
	sys := &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
	}
	if s.Cgroup {
		want = 2
	}
	if len(fds) != want {
		return wire.Spawned{Why: "the packet carries another number of descriptors than it says"}
	}
	if s.Cgroup {
		sys.UseCgroupFD, sys.CgroupFD = true, fds[1]
	}
	c := &child{exit: s.Exit}
	var theirs [2]int
	for i, path := range []string{s.Stdout, s.Stderr} {
		var pipe [2]int
		if err := syscall.Pipe2(pipe[:], syscall.O_CLOEXEC); err != nil {
			if i == 1 {
				k.forget(c.outputs[0])
				syscall.Close(theirs[0])
			}
			return wire.Spawned{Why: "pipe: " + err.Error()}
		}
		_ = syscall.SetNonblock(pipe[0], true)
		c.outputs[i], theirs[i] = &output{fd: pipe[0], path: path, file: -1}, pipe[1]
		k.outputs[pipe[0]] = c.outputs[i]
	}
	pid, err := syscall.ForkExec("/proc/self/exe", []string{"init"}, &syscall.ProcAttr{
		Dir: "/",
		// One thread that works, and a collector that never has to.
		Env: []string{"GOMAXPROCS=1", "GOGC=off"},
		// Nothing that the init would take for a user namespace, or for a wish to have one.
		Files: []uintptr{uintptr(k.null), uintptr(theirs[0]), uintptr(theirs[1]), uintptr(fds[0]), none, none},
		Sys:   sys,
	})
	syscall.Close(theirs[0])
	syscall.Close(theirs[1])
	pidfd := -1
	if err == nil {
		c.pid = pid
		fd, _, e := syscall.Syscall(sysPidfdOpen, uintptr(pid), 0, 0)
		if e != 0 || !k.await(int(fd)) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			_, _ = syscall.Wait4(pid, nil, 0, nil)
			err = syscall.EMFILE
		}
		pidfd = int(fd)
	}
	if err != nil {
		k.forget(c.outputs[0])
		k.forget(c.outputs[1])
		return wire.Spawned{Why: "start the process: " + err.Error()}
	}
	k.children[pidfd] = c
	k.listen(syscall.EPOLL_CTL_ADD, c.outputs[0])
	k.listen(syscall.EPOLL_CTL_ADD, c.outputs[1])
	return wire.Spawned{PID: uint32(pid)}
}

// listen has the kernel tell, once, that there is something of the output to be read.
func (k *keeper) listen(op int, o *output) {
	_ = syscall.EpollCtl(k.epoll, op, o.fd, &syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLONESHOT, Fd: int32(o.fd)})
}

// hear has what can be read of the output written down: at once where it goes on and on, else a moment later.
func (k *keeper) hear(o *output) {
	now := milliseconds()
	if now-o.last <= patience {
		k.take(o, now)
		return
	}
	if len(k.late) == 0 {
		k.due = now + patience
	}
	k.late = append(k.late, o)
}

// copyLate writes down what has waited for long enough. Those that came after the first wait for less.
func (k *keeper) copyLate() {
	if len(k.late) == 0 {
		return
	}
	now := milliseconds()
	if now < k.due {
		return
	}
	for i, o := range k.late {
		if !o.ended {
			k.take(o, now)
		}
		k.late[i] = nil
	}
	k.late = k.late[:0]
}

func (k *keeper) take(o *output, now int64) {
	o.last = now
	if k.copy(o); !o.ended {
		k.listen(syscall.EPOLL_CTL_MOD, o)
	}
}

// pause is how long nothing has to be done, in milliseconds; -1 where that has no end.
func (k *keeper) pause() int {
	if len(k.late) == 0 {
		return -1
	}
	return int(max(0, k.due-milliseconds()))
}

// milliseconds is the time of a clock that nobody sets.
func milliseconds() int64 {
	var now syscall.Timespec
	_, _, _ = syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, clockMonotonic, uintptr(unsafe.Pointer(&now)), 0)
	return now.Nano() / 1e6
}

// copy writes down what can be read at once, up to the buffer's size, and reports whether there may be more.
func (k *keeper) copy(o *output) bool {
	n, err := syscall.Read(o.fd, k.buffer)
	switch {
	case err == syscall.EINTR:
		return true
	case err == syscall.EAGAIN:
		return false
	case err != nil || n == 0:
		k.forget(o)
		return false
	}
	if o.file < 0 {
		if o.file, err = syscall.Open(o.path, syscall.O_WRONLY|syscall.O_APPEND|syscall.O_CLOEXEC, 0); err != nil {
			o.file = -1
			// The process must not block on output that nobody takes.
			return true
		}
	}
	writeAll(o.file, k.buffer[:n])
	return true
}

func (k *keeper) forget(o *output) {
	if o.ended {
		return
	}
	o.ended = true
	if o.file >= 0 {
		syscall.Close(o.file)
	}
	delete(k.outputs, o.fd)
	syscall.Close(o.fd)
}

// reap writes down how a process ended, after what it had written.
func (k *keeper) reap(pidfd int) {
	c := k.children[pidfd]
	var status syscall.WaitStatus
	for {
		pid, err := syscall.Wait4(c.pid, &status, syscall.WNOHANG, nil)
		if err == nil && pid == 0 {
			// The event was of another process, that had the descriptor before.
			return
		}
		if err != syscall.EINTR {
			break
		}
	}
	for _, o := range c.outputs {
		for !o.ended && k.copy(o) {
		}
		k.forget(o)
	}
	code := status.ExitStatus()
	if status.Signaled() {
		code = killedBase + int(status.Signal())
	}
	// Where its sandbox is gone already, so is the file.
	if fd, err := syscall.Open(c.exit, syscall.O_WRONLY|syscall.O_CLOEXEC, 0); err == nil {
		writeAll(fd, []byte(strconv.Itoa(code)+"\n"))
		syscall.Close(fd)
	}
	delete(k.children, pidfd)
	syscall.Close(pidfd)
}
