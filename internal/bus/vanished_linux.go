package bus

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// missVanished has the connection break when what was sent over it is not acknowledged for vanishedAfter. The kernels of both sides do that among
// themselves: the processes need not wake for it. Where it cannot be set the pings miss the server, later.
func missVanished(c net.Conn) {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(vanishedAfter.Milliseconds()))
	})
}
