//go:build linux

package main

import (
	"bytes"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// processes reach for another process, by its number or by looking through all that can be seen.
func processes() map[string]attempt {
	of := func(f func(pid int) error) attempt {
		return func(a url.Values) (string, error) {
			pid, err := strconv.Atoi(a.Get("pid"))
			if err != nil {
				return "", err
			}
			return "", f(pid)
		}
	}
	return map[string]attempt{
		"kill": of(func(pid int) error { return unix.Kill(pid, 0) }),
		"pidfd": of(func(pid int) error {
			fd, err := unix.PidfdOpen(pid, 0)
			if err != nil {
				return err
			}
			return unix.Close(fd)
		}),
		"ptrace":    of(trace),
		"vm-read":   of(readMemory),
		"prlimit":   of(func(pid int) error { return unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &unix.Rlimit{}) }),
		"affinity":  of(func(pid int) error { return unix.SchedGetaffinity(pid, &unix.CPUSet{}) }),
		"processes": func(url.Values) (string, error) { return seen() },
		"find-secret": func(a url.Values) (string, error) {
			return findSecret(a.Get("secret"))
		},
	}
}

// trace attaches to the process and lets go of it.
func trace(pid int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.PtraceSeize(pid); err != nil {
		return err
	}
	// A process that is not stopped cannot be let go of; it is when this thread ends, with the program.
	return nil
}

// readMemory reads an address at which nothing is: who may read the process is told so.
func readMemory(pid int) error {
	b := make([]byte, 1)
	_, err := unix.ProcessVMReadv(pid, []unix.Iovec{{Base: &b[0], Len: 1}}, []unix.RemoteIovec{{Base: uintptr(unsafe.Pointer(nil)), Len: 1}}, 0)
	return err
}

// seen lists the programs of all processes that can be seen.
func seen() (string, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return "", err
	}
	var out []string
	for _, d := range dirs {
		comm, err := os.ReadFile(d + "/comm")
		if err == nil {
			out = append(out, strings.TrimSpace(string(comm)))
		}
	}
	return strings.Join(out, " "), nil
}

// findSecret looks for the secret in what can be read of every process.
func findSecret(secret string) (string, error) {
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		return "", err
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err == nil && bytes.Contains(b, []byte(secret)) {
			return f, nil
		}
	}
	return "", fmt.Errorf("in none of %d: %w", len(files), unix.ENOENT)
}
