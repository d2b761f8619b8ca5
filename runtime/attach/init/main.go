//go:build linux

// Command init is the first process of a sandbox that was made ahead of time: it sets its sandbox up, waits for a function and becomes it.
// Called by the name of tatami-keeper, with the path of its socket, it is the parent of such processes. Called by the name of wire.StartProgram, with
// the path of a file of words, it is what the OCI runtime starts in a container that was made ahead, and becomes the function of the words.
//
// It is built without the large packages of the standard library: each waiting sandbox keeps one in memory.
package main

import (
	"runtime"
	"syscall"

	"github.com/tatami-faas/tatami/runtime/attach/wire"
	"github.com/tatami-faas/tatami/runtime/signals"
)

const (
	// passed is the descriptor at which the way to the worker comes, and at which a program looks for a socket that it is given.
	passed = 3
	// control is where the way to the worker goes, out of that socket's way.
	control = 64

	// entered is the descriptor at which the program that starts finds the user namespace that it is to be in from its first instruction on;
	// something at made has it make one instead.
	entered = 4
	made    = 5

	// anew is the name by which it starts itself in a user namespace.
	anew = "users"

	sysCloseRange = 436

	exitUnused     = 0
	exitImpossible = 1
)

func main() {
	// What follows changes this thread only: it is the one that becomes the function, and the others end with that.
	runtime.LockOSThread()
	called := arguments()
	if path, ok := after(called, "tatami-keeper"); ok {
		closeFrom(keeperClient+1, lastFile)
		keep(path)
		return
	}
	path, ok := after(called, wire.StartProgram)
	if called == "" && syscall.Access(wire.StartWords, 0) == nil {
		// gVisor has nothing of a process in /proc where the image has another mount lead there.
		path, ok = wire.StartWords, true
	}
	if ok {
		writeAll(errorOutput, []byte("the process cannot be started: "+start(path)+"\n"))
		syscall.Exit(exitImpossible)
	}
	if _, _, e := syscall.RawSyscall(syscall.SYS_DUP3, passed, control, syscall.O_CLOEXEC); e != 0 {
		syscall.Exit(exitImpossible)
	}
	// Neither what it was started with, nor what whoever started the worker has left open, is the function's: not even until that starts, for a
	// link of the image's may lead there.
	closeFrom(passed, control-1)
	closeFrom(control+1, lastFile)
	if _, ok := after(called, anew); ok && !writeAll(control, []byte{wire.Entered}) {
		syscall.Exit(exitUnused)
	}
	setup, err := wire.DecodeSetup(receive())
	if err != nil {
		fail(err.Error())
	}
	for i := range setup.Steps {
		if why := do(&setup.Steps[i]); why != "" {
			fail(why)
		}
	}
	if why := alone(); why != "" {
		fail(why)
	}
	signals.Hear(1)
	if why := confine(&setup); why != "" {
		fail(why)
	}
	if !writeAll(control, []byte{wire.Hello}) {
		syscall.Exit(exitUnused)
	}
	r, err := wire.Decode(receive())
	if err != nil {
		fail(err.Error())
	}
	if r.Listen != 0 {
		if why := listen(r.Listen); why != "" {
			fail(why)
		}
	}
	// The old root may lie on the new one until the process may begin: no name is looked up before but one that leads nowhere else.
	if r.Cwd != "/" {
		awaitBegin()
	}
	if why := settle(r, setup.Keep); why != "" {
		fail(why)
	}
	if r.Cwd == "/" {
		awaitBegin()
	}
	fail(become(r))
}

// awaitBegin returns once the process may begin.
func awaitBegin() {
	if word := make([]byte, 1); !readAll(control, word) || word[0] != wire.Begin {
		syscall.Exit(exitUnused)
	}
}

// lastFile is beyond every descriptor.
const lastFile = ^uintptr(0) >> 32

// closeFrom closes the descriptors from first to last.
func closeFrom(first, last uintptr) {
	if _, _, e := syscall.RawSyscall(sysCloseRange, first, last, 0); e == 0 {
		return
	}
	// Kernels before 5.9 have them closed one by one.
	var most syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &most) != nil {
		syscall.Exit(exitImpossible)
	}
	for fd := first; fd <= min(last, uintptr(most.Max)); fd++ {
		_, _, _ = syscall.RawSyscall(syscall.SYS_CLOSE, fd, 0, 0)
	}
}

// arguments are what this process was called by: its name and what follows, each with a zero byte behind. It looks for them itself: the package
// os, which has them, is a large one.
func arguments() string {
	fd, err := syscall.Open("/proc/self/cmdline", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer syscall.Close(fd)
	b := make([]byte, 256)
	n, err := syscall.Read(fd, b)
	if err != nil {
		return ""
	}
	return string(b[:n])
}

// after returns the one argument after the name, if the process was called by that name.
func after(called, name string) (argument string, ok bool) {
	n := len(name)
	if len(called) <= n || called[:n] != name || called[n] != 0 {
		return "", false
	}
	rest := called[n+1:]
	return rest[:max(0, len(rest)-1)], true
}

// receive reads one message. Where the worker is gone, nobody wants this process any more.
func receive() []byte {
	header := make([]byte, wire.HeaderSize)
	if !readAll(control, header) {
		syscall.Exit(exitUnused)
	}
	n, err := wire.Length(header)
	if err != nil {
		fail(err.Error())
	}
	body := make([]byte, n)
	if !readAll(control, body) {
		syscall.Exit(exitUnused)
	}
	return body
}

// become returns only with why it failed, in the OCI runtime's words. The process is where and who the function is to be already.
func become(r wire.Request) string {
	path, why := lookup(r.Args[0], r.Env)
	if why != "" {
		return why
	}
	err := syscall.Exec(path, r.Args, r.Env)
	return "exec " + path + ": " + err.Error()
}

// settle goes to the request's directory and becomes its user, who has had the capabilities until now.
func settle(r wire.Request, had uint64) string {
	// As root first, then as the user: either may be the only one that can.
	outside := syscall.Chdir(r.Cwd)
	if why := drop(r, had); why != "" {
		return why
	}
	if outside != nil {
		if err := syscall.Chdir(r.Cwd); err != nil {
			return "chdir to cwd (" + quote(r.Cwd) + ") set in config.json failed: " + err.Error()
		}
	}
	return ""
}

func fail(why string) {
	writeAll(control, []byte(why))
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
