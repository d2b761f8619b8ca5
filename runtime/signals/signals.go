//go:build linux

// Package signals gives signals that a process was started to ignore their defaults.
package signals

import (
	"syscall"
	"unsafe"
)

const (
	lastSignal = 64
	// ignored is the kernel's SIG_IGN.
	ignored = 1
)

// action is the kernel's struct sigaction; its zero value stands for the default.
type action struct{ handler, flags, restorer, mask uint64 }

// OfTheLibrary is the first of the signals that the kernel keeps for C's library.
const OfTheLibrary = 32

// Hear gives every signal from first on that is ignored its default. An ignored signal stays ignored over an exec: what the server was started with, by nohup
// for one, or by make, which has its children ignore two of the C library's own, would be passed on to functions.
func Hear(first uintptr) {
	for sig := first; sig <= lastSignal; sig++ {
		var now, byDefault action
		_, _, e := syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, sig, 0, uintptr(unsafe.Pointer(&now)), unsafe.Sizeof(now.mask), 0, 0)
		if e == 0 && now.handler == ignored {
			_, _, _ = syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&byDefault)), 0, unsafe.Sizeof(now.mask), 0, 0)
		}
	}
}
