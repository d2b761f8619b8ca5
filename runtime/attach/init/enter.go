//go:build linux

package main

import "syscall"

// enter is where the program starts, before the Go runtime does: a user namespace can be entered by a process of one thread only. It enters
// the one at the descriptor entered, as its root; where there is none it changes nothing.
//
//nolint:unused // The linker is told its name.
func enter()

// startAnew starts this program once more, in the user namespace that lies aside. It returns only with why it cannot.
func startAnew() error {
	for _, move := range [][2]uintptr{{control, passed}, {aside, entered}} {
		// Without the flag: the program that is started has them.
		if _, _, e := syscall.RawSyscall(syscall.SYS_DUP3, move[0], move[1], 0); e != 0 {
			return e
		}
	}
	return syscall.Exec("/proc/self/exe", []string{"init"}, []string{"GOMAXPROCS=1", "GOGC=off"})
}
