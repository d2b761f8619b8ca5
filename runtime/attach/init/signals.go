//go:build linux

package main

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

// hearSignals gives signals that are ignored their defaults: what the server was started with, by nohup for one, would pass on to the
// function.
func hearSignals() {
	for sig := uintptr(1); sig <= lastSignal; sig++ {
		var now, byDefault action
		_, _, e := syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, sig, 0, uintptr(unsafe.Pointer(&now)), unsafe.Sizeof(now.mask), 0, 0)
		if e == 0 && now.handler == ignored {
			_, _, _ = syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&byDefault)), 0, unsafe.Sizeof(now.mask), 0, 0)
		}
	}
}
