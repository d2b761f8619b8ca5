// Package socket reads and writes non-blocking sockets without the scheduler's help where none is needed.
//
// A system call through net is announced to Go's scheduler, which then wakes a thread that watches over calls that may block: on an idle machine
// a context switch for every request. A call on a non-blocking socket returns at once, so there is nothing to watch. Where nothing can be read
// or written, the goroutine waits as it does with net.
package socket

import (
	"io"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// most is how much one system call moves: for so long the scheduler cannot interrupt it.
const most = 64 << 10

// Conn is a connection over a socket. One goroutine at a time may read, and one may write.
type Conn struct {
	net.Conn
	raw         syscall.RawConn
	read, write operation
	// peek is look.
	peek func(fd uintptr) bool
}

// operation is a read or a write under way.
type operation struct {
	p   []byte
	n   int
	err syscall.Errno
	// try does what can be done now, and reports whether that ends the operation.
	try func(fd uintptr) bool
}

// New returns nc with the methods of this package; nil where it has no socket.
func New(nc net.Conn) *Conn {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	c := &Conn{Conn: nc, raw: raw}
	c.read.try, c.write.try, c.peek = c.tryRead, c.tryWrite, c.look
	return c
}

// Raw gives access to the socket.
func (c *Conn) Raw() syscall.RawConn { return c.raw }

// Quiet reports whether the connection is open and nothing came; nobody may be reading. A byte that came is lost: the connection is not to be used
// after that.
func (c *Conn) Quiet() bool { return c.raw.Read(c.peek) == nil && c.read.err == syscall.EAGAIN }

func (c *Conn) look(fd uintptr) bool {
	var b [1]byte
	_, c.read.err = ReadNow(fd, b[:])
	return true
}

// Read reads what there is, or waits for something.
func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	o := &c.read
	o.p, o.n, o.err = p, 0, 0
	err := c.raw.Read(o.try)
	o.p = nil
	switch {
	case err != nil:
		return 0, err
	case o.err != 0:
		return 0, c.failed("read", o.err)
	case o.n == 0:
		return 0, io.EOF
	}
	return o.n, nil
}

func (c *Conn) tryRead(fd uintptr) bool {
	o := &c.read
	o.n, o.err = ReadNow(fd, o.p)
	return o.err != syscall.EAGAIN
}

// Write writes all of p.
func (c *Conn) Write(p []byte) (int, error) {
	o := &c.write
	o.p, o.n, o.err = p, 0, 0
	err := c.raw.Write(o.try)
	o.p = nil
	switch {
	case err != nil:
		return o.n, err
	case o.err != 0:
		return o.n, c.failed("write", o.err)
	}
	return o.n, nil
}

func (c *Conn) tryWrite(fd uintptr) bool {
	o := &c.write
	for o.n < len(o.p) {
		n, err := writeNow(fd, o.p[o.n:])
		if o.err = err; err == syscall.EAGAIN {
			return false
		}
		if err != 0 {
			return true
		}
		o.n += n
	}
	return true
}

// CloseWrite ends the side that writes, where the connection can.
func (c *Conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.failed("close", syscall.ENOTSUP)
}

// failed is the error that net gives.
func (c *Conn) failed(op string, err syscall.Errno) error {
	return &net.OpError{Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: os.NewSyscallError(op, err)}
}

// Readable reports whether a read of the socket, or an accept where it listens, would find something. It takes nothing away.
func Readable(raw syscall.RawConn) bool {
	ready := false
	err := raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, 0)
		ready = err == nil && n > 0 && p[0].Revents&unix.POLLIN != 0
	})
	return err == nil && ready
}
