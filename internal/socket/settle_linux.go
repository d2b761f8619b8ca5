package socket

import (
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// flagsAt is where a segment's flags are, and flagSYN the one by which it begins a connection.
	flagsAt, flagSYN = 13, 0x02
	// whole is how much of a segment is let through: all.
	whole = 0xffffffff
)

// Settle has a socket that listens for TCP take part in no new handshake. Those under way come to their end and can be accepted: when they have been, the
// socket can be closed without breaking a connection. Who wants to connect meanwhile tries again a second later, by itself. It is an error for a socket of
// Multipath TCP, which Go listens with unless it is told not to.
func Settle(raw syscall.RawConn) error {
	code := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: flagsAt},
		{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: flagSYN, Jt: 0, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		{Code: unix.BPF_RET | unix.BPF_K, K: whole},
	}
	prog := &unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	var serr error
	err := raw.Control(func(fd uintptr) {
		serr = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, prog)
	})
	if err != nil {
		return err
	}
	return serr
}
