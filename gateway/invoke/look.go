package invoke

import (
	"syscall"

	"github.com/tatami-faas/tatami/gateway/socket"
)

// wouldBlock reports whether a read of the non-blocking socket finds it open and empty. A byte that it finds is lost: the connection is
// not used after that.
func wouldBlock(fd uintptr) bool {
	var b [1]byte
	_, err := socket.ReadNow(fd, b[:])
	return err == syscall.EAGAIN
}
