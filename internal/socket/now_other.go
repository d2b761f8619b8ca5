//go:build unix && !linux

package socket

import (
	"errors"
	"syscall"
)

// ReadNow reads from a non-blocking socket what there is; the error is EAGAIN where nothing is. P must not be empty; 0 bytes are its end.
func ReadNow(fd uintptr, p []byte) (int, syscall.Errno) {
	return now(syscall.Read, fd, p)
}

func writeNow(fd uintptr, p []byte) (int, syscall.Errno) {
	return now(syscall.Write, fd, p)
}

func now(call func(int, []byte) (int, error), fd uintptr, p []byte) (int, syscall.Errno) {
	for {
		n, err := call(int(fd), p)
		if err == nil {
			return n, 0
		}
		code := syscall.EIO
		if errors.As(err, &code); code != syscall.EINTR {
			return 0, code
		}
	}
}
