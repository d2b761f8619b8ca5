//go:build linux

package attach

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// onLostThread runs f on a thread that ends afterwards: whatever f did to it is seen by no other goroutine. It returns when f has.
func onLostThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The process's first thread would not end, and what reads /proc/self would see what f did to it. It is held here, so that the
			// next goroutine gets another.
			done <- onLostThread(f)
			runtime.UnlockOSThread()
			return
		}
		// Ending while locked ends the thread.
		done <- f()
	}()
	return <-done
}
