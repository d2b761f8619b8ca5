//go:build linux

package main

import (
	"syscall"
	"unsafe"

	"github.com/tatami-faas/tatami/runtime/attach/wire"
)

const (
	prCapBSetDrop     = 24
	prSetNoNewPrivs   = 38
	prCapAmbient      = 47
	prCapAmbientClear = 4
	// lastCap is beyond every capability that there is.
	lastCap           = 63
	allCaps           = ^uint64(0)
	capVersion3       = 0x20080522
	seccompModeFilter = 1
	// filterStep is the size of one instruction of a filter.
	filterStep = 8
)

// confine gives up what is not kept until the request comes.
func confine(s *wire.Setup) string {
	if why := dropBounding(allCaps &^ s.Keep); why != "" {
		return why
	}
	if _, _, e := syscall.RawSyscall6(syscall.SYS_PRCTL, prCapAmbient, prCapAmbientClear, 0, 0, 0, 0); e != 0 && e != syscall.EINVAL {
		return "clear ambient capabilities: " + e.Error()
	}
	if why := setCaps(s.Keep); why != "" {
		return why
	}
	if _, _, e := syscall.RawSyscall6(syscall.SYS_PRCTL, prSetNoNewPrivs, 1, 0, 0, 0, 0); e != 0 {
		return "no_new_privs: " + e.Error()
	}
	if len(s.Filter) == 0 {
		return ""
	}
	program := struct {
		length uint16
		first  *byte
	}{uint16(len(s.Filter) / filterStep), &s.Filter[0]}
	_, _, e := syscall.RawSyscall(sysSeccomp, seccompModeFilter, uintptr(s.FilterFlags), uintptr(unsafe.Pointer(&program)))
	if e != 0 {
		return "seccomp: " + e.Error()
	}
	return ""
}

// drop becomes the user and gives up every privilege that it is not to have, of those that it has had until now.
func drop(r wire.Request, had uint64) string {
	if why := dropBounding(had &^ r.Keep); why != "" {
		return why
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
	return setCaps(r.Keep)
}

// becomeRoot takes the numbers of the root of the user namespace that the thread has all privileges in.
func becomeRoot() error {
	for _, call := range []uintptr{syscall.SYS_SETGROUPS, syscall.SYS_SETRESGID, syscall.SYS_SETRESUID} {
		if _, _, e := syscall.RawSyscall(call, 0, 0, 0); e != 0 {
			return e
		}
	}
	return nil
}

// dropBounding takes what is gone out of the bounding set.
func dropBounding(gone uint64) string {
	for c := uintptr(0); c <= lastCap; c++ {
		if gone&(1<<c) == 0 {
			continue
		}
		if _, _, e := syscall.RawSyscall(syscall.SYS_PRCTL, prCapBSetDrop, c, 0); e == syscall.EINVAL {
			break
		} else if e != 0 {
			return "drop capability: " + e.Error()
		}
	}
	return ""
}

// setCaps makes these the thread's permitted and effective capabilities; none are inheritable.
func setCaps(keep uint64) string {
	header := struct {
		version uint32
		pid     int32
	}{version: capVersion3}
	low, high := uint32(keep), uint32(keep>>32)
	sets := [6]uint32{low, low, 0, high, high, 0}
	if _, _, e := syscall.RawSyscall(syscall.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&sets)), 0); e != 0 {
		return "capset: " + e.Error()
	}
	return ""
}
