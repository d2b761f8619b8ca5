//go:build linux

package containerd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// socketMaker makes sockets inside other network namespaces. A socket stays in the namespace it was made in, so only the call that
// makes it has to run there: on threads of its own, which no other goroutine ever gets.
type socketMaker struct {
	requests chan socketRequest
	done     chan struct{}
	threads  sync.WaitGroup
}

type socketRequest struct {
	netns  *os.File
	family int
	reply  chan<- socketReply
}

type socketReply struct {
	fd  int
	err error
}

const socketThreads = 2

func newSocketMaker() *socketMaker {
	return &socketMaker{requests: make(chan socketRequest), done: make(chan struct{})}
}

func (m *socketMaker) start() {
	for range socketThreads {
		m.threads.Go(m.serve)
	}
}

func (m *socketMaker) close() {
	close(m.done)
	m.threads.Wait()
}

// serve runs threads one after the other: one that cannot come home ends, and with it its thread.
func (m *socketMaker) serve() {
	for {
		ended := make(chan bool)
		go func() { ended <- m.thread() }()
		if <-ended {
			return
		}
	}
}

// thread serves requests until close (true) or until its thread is spoilt (false). In both cases it ends locked, so the thread dies.
func (m *socketMaker) thread() bool {
	runtime.LockOSThread()
	home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		home = -1
	} else {
		defer unix.Close(home)
	}
	for {
		select {
		case <-m.done:
			return true
		case r := <-m.requests:
			if home < 0 {
				r.reply <- socketReply{-1, fmt.Errorf("open this thread's network namespace: %w", err)}
				continue
			}
			fd, err := socketIn(r.netns, r.family)
			back := unix.Setns(home, unix.CLONE_NEWNET)
			r.reply <- socketReply{fd, err}
			if back != nil {
				return false
			}
		}
	}
}

// socketIn leaves the thread in the other namespace.
func socketIn(netns *os.File, family int) (int, error) {
	fd, inner := -1, error(nil)
	raw, err := netns.SyscallConn()
	if err != nil {
		return -1, err
	}
	err = raw.Control(func(ns uintptr) {
		if inner = unix.Setns(int(ns), unix.CLONE_NEWNET); inner != nil {
			inner = os.NewSyscallError("setns", inner)
			return
		}
		fd, inner = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		inner = os.NewSyscallError("socket", inner)
	})
	if err != nil {
		return -1, err
	}
	return fd, inner
}

func (m *socketMaker) socket(ctx context.Context, netns *os.File, family int) (int, error) {
	reply := make(chan socketReply, 1)
	select {
	case m.requests <- socketRequest{netns, family, reply}:
	case <-m.done:
		return -1, net.ErrClosed
	case <-ctx.Done():
		return -1, ctx.Err()
	}
	r := <-reply
	return r.fd, r.err
}

// dial connects to the port on the namespace's loopback device, over IPv4, then IPv6. The error is the one of IPv4 where both fail.
func (m *socketMaker) dial(ctx context.Context, netns *os.File, port int) (net.Conn, error) {
	conn, err := m.connect(ctx, netns, unix.AF_INET, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}})
	if err == nil || ctx.Err() != nil {
		return conn, opError(port, err)
	}
	conn6, err6 := m.connect(ctx, netns, unix.AF_INET6, &unix.SockaddrInet6{Port: port, Addr: [16]byte{15: 1}})
	if err6 == nil {
		return conn6, nil
	}
	return nil, opError(port, err)
}

func opError(port int, err error) error {
	if err == nil {
		return nil
	}
	return &net.OpError{Op: "dial", Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}, Err: err}
}

func (m *socketMaker) connect(ctx context.Context, netns *os.File, family int, to unix.Sockaddr) (net.Conn, error) {
	fd, err := m.socket(ctx, netns, family)
	if err != nil {
		return nil, err
	}
	err = unix.Connect(fd, to)
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("connect", err)
	}
	// The descriptor is non-blocking, so the file waits by the runtime's poller; FileConn makes its own copy.
	f := os.NewFile(uintptr(fd), "sandbox")
	defer f.Close()
	if err != nil {
		if err := established(ctx, f); err != nil {
			return nil, err
		}
	}
	return net.FileConn(f)
}

// established waits until the connect under way has ended.
func established(ctx context.Context, f *os.File) error {
	if t, ok := ctx.Deadline(); ok {
		if err := f.SetWriteDeadline(t); err != nil {
			return err
		}
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var state error
	err = raw.Write(func(fd uintptr) bool {
		code, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		switch {
		case err != nil:
			state = os.NewSyscallError("getsockopt", err)
		case code != 0:
			state = os.NewSyscallError("connect", unix.Errno(code))
		default:
			// No error and no peer: still under way.
			if _, err := unix.Getpeername(int(fd)); errors.Is(err, unix.ENOTCONN) {
				return false
			}
		}
		return true
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errors.Join(err, state)
}
