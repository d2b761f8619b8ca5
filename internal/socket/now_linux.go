package socket

import (
	"syscall"
	"unsafe"
)

// ReadNow reads from a non-blocking socket what there is; the error is EAGAIN where nothing is. P must not be empty; 0 bytes are its end.
func ReadNow(fd uintptr, p []byte) (int, syscall.Errno) {
	return now(syscall.SYS_READ, fd, p)
}

func writeNow(fd uintptr, p []byte) (int, syscall.Errno) {
	return now(syscall.SYS_WRITE, fd, p[:min(len(p), most)])
}

func now(call, fd uintptr, p []byte) (int, syscall.Errno) {
	for {
		n, _, err := syscall.RawSyscall(call, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
		switch err {
		case 0:
			return int(n), 0
		case syscall.EINTR:
		default:
			return 0, err
		}
	}
}
