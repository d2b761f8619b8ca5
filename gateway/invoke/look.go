package invoke

import "syscall"

// wouldBlock reports whether a read of the non-blocking socket finds it open and empty. A byte that it finds is lost: the connection is
// not used after that.
func wouldBlock(fd uintptr) bool {
	var b [1]byte
	for {
		_, err := syscall.Read(int(fd), b[:])
		if err != syscall.EINTR {
			return err == syscall.EAGAIN
		}
	}
}
