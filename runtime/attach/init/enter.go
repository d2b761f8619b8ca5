//go:build linux

package main

import "syscall"

// enter is where the program starts, before the Go runtime does: a user namespace can be entered, or made, by a process of one thread only. It
// enters the one at the descriptor entered, as its root; where there is none, and something at the descriptor made, it makes one, without
// users; else it changes nothing.
//
//nolint:unused // The linker is told its name.
func enter()

// startAnew starts this program once more, in a user namespace of its own. It returns only with why it cannot.
func startAnew() error {
	for _, to := range []uintptr{passed, made} {
		// Without the flag: the program that is started has them.
		if _, _, e := syscall.RawSyscall(syscall.SYS_DUP3, control, to, 0); e != 0 {
			return e
		}
	}
	return syscall.Exec("/proc/self/exe", []string{anew}, []string{"GOMAXPROCS=1", "GOGC=off"})
}
