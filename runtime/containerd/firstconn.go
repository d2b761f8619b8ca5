//go:build linux

package containerd

import (
	"errors"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// firstTime is how long the connection that showed that a function listens waits for its first caller. To accept another one, and to see this
// one's end, would cost a function that has just started time; one that serves connections one after the other must not wait for long.
const firstTime = 50 * time.Millisecond

// keepFirst keeps a connection to the function, which nothing was sent through, for its first caller, for that long. It takes the
// descriptor.
func (b *box) keepFirst(fd int, wait time.Duration) error {
	f := os.NewFile(uintptr(fd), "sandbox")
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dropFirstLocked()
	if b.netns == nil {
		conn.Close()
		return nil
	}
	b.first = conn
	b.firstEnd = time.AfterFunc(wait, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.first == conn {
			b.dropFirstLocked()
		}
	})
	return nil
}

// takeFirst returns the connection, which is the caller's then; nil where there is none, or the function has ended it.
func (b *box) takeFirst() net.Conn {
	b.mu.Lock()
	conn := b.first
	if conn != nil {
		b.first = nil
		b.firstEnd.Stop()
	}
	b.mu.Unlock()
	if conn == nil || stillOpen(conn) {
		return conn
	}
	conn.Close()
	return nil
}

// dropFirstLocked ends the connection, if it still waits. b.mu is held.
func (b *box) dropFirstLocked() {
	if b.first != nil {
		b.firstEnd.Stop()
		b.first.Close()
		b.first = nil
	}
}

// stillOpen reports whether the other side has neither ended the connection nor broken it.
func stillOpen(conn net.Conn) bool {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	var n int
	var peeked error
	err = raw.Control(func(fd uintptr) {
		n, _, peeked = unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
	})
	return err == nil && (n > 0 || errors.Is(peeked, unix.EAGAIN))
}
