//go:build linux

// Command init is the first process of a sandbox that was made ahead of time: it waits for a function and becomes it.
//
// It is built without the large packages of the standard library: each waiting sandbox keeps one in memory.
package main

import (
	"runtime"
	"syscall"
	"unsafe"

	"github.com/tatami-faas/tatami/runtime/attach/wire"
)

// socket leads to the worker.
const socket = "/ctl"

const (
	prCapBSetDrop = 24
	// lastCap is beyond every capability that there is.
	lastCap        = 63
	capVersion3    = 0x20080522
	exitUnused     = 0
	exitImpossible = 1
)

func main() {
	// What follows changes this thread only: it is the one that becomes the function, and the others end with that.
	runtime.LockOSThread()
	conn, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil || syscall.Connect(conn, &syscall.SockaddrUnix{Name: socket}) != nil || !writeAll(conn, []byte{wire.Hello}) {
		syscall.Exit(exitImpossible)
	}
	header := make([]byte, wire.HeaderSize)
	if !readAll(conn, header) {
		syscall.Exit(exitUnused)
	}
	n, err := wire.Length(header)
	if err != nil {
		fail(conn, err.Error())
	}
	body := make([]byte, n)
	if !readAll(conn, body) {
		syscall.Exit(exitUnused)
	}
	r, err := wire.Decode(body)
	if err != nil {
		fail(conn, err.Error())
	}
	if r.Listen != 0 {
		var why string
		if conn, why = listen(r.Listen, conn); why != "" {
			fail(conn, why)
		}
	}
	fail(conn, become(r))
}

// become returns only with why it failed, in the OCI runtime's words.
func become(r wire.Request) string {
	// As root first, then as the user: either may be the only one that can.
	outside := syscall.Chdir(r.Cwd)
	if why := drop(r); why != "" {
		return why
	}
	if outside != nil {
		if err := syscall.Chdir(r.Cwd); err != nil {
			return "chdir to cwd (" + quote(r.Cwd) + ") set in config.json failed: " + err.Error()
		}
	}
	path, why := lookup(r.Args[0], r.Env)
	if why != "" {
		return why
	}
	err := syscall.Exec(path, r.Args, r.Env)
	return "exec " + path + ": " + err.Error()
}

// drop becomes the user and gives up every privilege.
func drop(r wire.Request) string {
	for c := uintptr(0); c <= lastCap; c++ {
		if _, _, e := syscall.RawSyscall(syscall.SYS_PRCTL, prCapBSetDrop, c, 0); e == syscall.EINVAL {
			break
		} else if e != 0 {
			return "drop capability: " + e.Error()
		}
	}
	var groups unsafe.Pointer
	if len(r.Groups) > 0 {
		groups = unsafe.Pointer(&r.Groups[0])
	}
	if _, _, e := syscall.RawSyscall(syscall.SYS_SETGROUPS, uintptr(len(r.Groups)), uintptr(groups), 0); e != 0 {
		return "setgroups: " + e.Error()
	}
	if _, _, e := syscall.RawSyscall(syscall.SYS_SETRESGID, uintptr(r.GID), uintptr(r.GID), uintptr(r.GID)); e != 0 {
		return "setgid: " + e.Error()
	}
	if _, _, e := syscall.RawSyscall(syscall.SYS_SETRESUID, uintptr(r.UID), uintptr(r.UID), uintptr(r.UID)); e != 0 {
		return "setuid: " + e.Error()
	}
	header := struct {
		version uint32
		pid     int32
	}{version: capVersion3}
	var none [6]uint32
	if _, _, e := syscall.RawSyscall(syscall.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&none)), 0); e != 0 {
		return "capset: " + e.Error()
	}
	return ""
}

func fail(conn int, why string) {
	writeAll(conn, []byte(why))
	syscall.Exit(exitImpossible)
}

func readAll(fd int, b []byte) bool {
	for len(b) > 0 {
		n, err := syscall.Read(fd, b)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return false
		}
		b = b[n:]
	}
	return true
}

func writeAll(fd int, b []byte) bool {
	for len(b) > 0 {
		n, err := syscall.Write(fd, b)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return false
		}
		b = b[n:]
	}
	return true
}
