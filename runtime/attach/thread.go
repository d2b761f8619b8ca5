//go:build linux

package attach

import (
	"os"
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

// InNetwork runs f on a thread inside the network namespace; the thread ends with it.
func InNetwork(netns *os.File, f func() error) error {
	return onLostThread(func() error {
		raw, err := netns.SyscallConn()
		if err != nil {
			return err
		}
		var entered error
		if err := raw.Control(func(fd uintptr) { entered = unix.Setns(int(fd), unix.CLONE_NEWNET) }); err != nil {
			return err
		}
		if entered != nil {
			return os.NewSyscallError("setns", entered)
		}
		return f()
	})
}
