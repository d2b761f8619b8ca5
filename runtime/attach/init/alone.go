//go:build linux

package main

import (
	"strconv"
	"syscall"
	"unsafe"
)

const (
	// killer is the signal that ends a thread here. Nobody sends it otherwise.
	killer     = uintptr(syscall.SIGUSR2)
	saOnStack  = 0x08000000
	saRestorer = 0x04000000
	anySignal  = ^uint64(0)
	taskDir    = "/proc/self/task"
	// mostLooks is how often alone looks before it gives up, lookPause the time between two looks in nanoseconds.
	mostLooks = 10_000
	lookPause = 50_000
)

// action is the kernel's struct sigaction.
type action struct {
	handler, flags, restorer uintptr
	mask                     uint64
}

// endThread ends the thread that it runs on, as a signal's handler.
//
//nolint:unused // The kernel is told its address.
func endThread()

// endThreadAt is where endThread begins.
func endThreadAt() uintptr

// alone ends the other threads, all of the Go runtime's, and says why it cannot. A program that becomes another waits until its threads are gone, the one
// that watches the others stops and wakes them just as the request has come, and the kernel looks at each thread of the machine whenever a root is
// exchanged. What they are for is not needed any more: nothing is collected, and the one goroutine that is left gives its thread to no other. Each
// is ended as it sleeps, when it has locked nothing; first the oldest, which is the one that could wake another.
func alone() string {
	var before action
	end := action{handler: endThreadAt(), flags: saOnStack | saRestorer, restorer: endThreadAt(), mask: anySignal}
	if e := handle(&end, &before); e != 0 {
		return "sigaction: " + e.Error()
	}
	me, pid := syscall.Gettid(), syscall.Getpid()
	for range mostLooks {
		tid, why := oldest(me)
		if why != "" {
			return why
		}
		if tid == 0 {
			if e := handle(&before, nil); e != 0 {
				return "sigaction: " + e.Error()
			}
			return ""
		}
		if sleeps(tid) {
			_, _, _ = syscall.RawSyscall(syscall.SYS_TGKILL, uintptr(pid), uintptr(tid), killer)
		}
		_, _, _ = syscall.RawSyscall(syscall.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&syscall.Timespec{Nsec: lookPause})), 0, 0)
	}
	return "its threads do not end"
}

func handle(now, before *action) syscall.Errno {
	_, _, e := syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, killer, uintptr(unsafe.Pointer(now)), uintptr(unsafe.Pointer(before)), unsafe.Sizeof(now.mask), 0, 0)
	return e
}

// oldest is the other thread with the lowest number; 0: there is none.
func oldest(me int) (tid int, why string) {
	fd, err := syscall.Open(taskDir, syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return 0, "open " + taskDir + ": " + err.Error()
	}
	defer syscall.Close(fd)
	names, buffer := []string(nil), make([]byte, 4096)
	for {
		n, err := syscall.ReadDirent(fd, buffer)
		if err != nil {
			return 0, "read " + taskDir + ": " + err.Error()
		}
		if n == 0 {
			break
		}
		_, _, names = syscall.ParseDirent(buffer[:n], -1, names)
	}
	for _, name := range names {
		if n, err := strconv.Atoi(name); err == nil && n != me && (tid == 0 || n < tid) {
			tid = n
		}
	}
	return tid, ""
}

// sleeps reports whether the thread waits for something.
func sleeps(tid int) bool {
	fd, err := syscall.Open(taskDir+"/"+strconv.Itoa(tid)+"/stat", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer syscall.Close(fd)
	b := make([]byte, 256)
	n, err := syscall.Read(fd, b)
	if err != nil {
		return false
	}
	// Its state is behind its name, which is in brackets.
	for i := n - 1; i >= 0; i-- {
		if b[i] == ')' {
			return i+2 < n && b[i+2] == 'S'
		}
	}
	return false
}
