//go:build linux

package main

import (
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"unsafe"

	"golang.org/x/sys/unix"
)

// at is AT_FDCWD as a system call's argument.
const at = ^uintptr(99)

// text is a constant for the kernel, which ends with a zero.
func text(s string) uintptr { return uintptr(unsafe.Pointer(unsafe.StringData(s))) }

// garbage is no module, no kernel and no handle; what gets as far as reading it says so.
func garbage() uintptr {
	return text("this is neither a module nor a kernel nor a handle, whatever one asks of it\x00")
}

// powers are the calls that change the machine, and those that widen what the process may do.
func powers() map[string]attempt {
	return map[string]attempt{
		"init-module":   plain(func() error { return call(unix.SYS_INIT_MODULE, garbage(), 64, text("\x00")) }),
		"finit-module":  plain(func() error { return unix.FinitModule(0, "", 0) }),
		"delete-module": plain(func() error { return unix.DeleteModule("tatami-no-such-module", unix.O_NONBLOCK) }),
		"kexec":         plain(func() error { return call(unix.SYS_KEXEC_LOAD, 0, 1<<20, 0, 0) }),
		"reboot":        plain(func() error { return call(unix.SYS_REBOOT, 1, 2, 3, 0) }),
		"swapon":        plain(func() error { return call(unix.SYS_SWAPON, text("/no-such-file\x00"), 0) }),
		"acct":          plain(func() error { return unix.Acct("/no-such-file") }),
		// No time has so many nanoseconds: who may set the clock is told so.
		"clock-settime": plain(func() error { return unix.ClockSettime(unix.CLOCK_REALTIME, &unix.Timespec{Nsec: 2e9}) }),
		"adjtimex": plain(func() error {
			_, err := unix.Adjtimex(&unix.Timex{Modes: unix.ADJ_TICK, Tick: 1})
			return err
		}),
		"syslog": plain(func() error {
			_, err := unix.Klogctl(unix.SYSLOG_ACTION_READ_ALL, make([]byte, 4096))
			return err
		}),
		"quotactl": plain(func() error { return call(unix.SYS_QUOTACTL, 0x800001<<8, 0, 0, 0) }),
		"vhangup":  plain(func() error { return call(unix.SYS_VHANGUP) }),
		"keyctl":   plain(func() error { return call(unix.SYS_KEYCTL, unix.KEYCTL_GET_KEYRING_ID, sessionKeyring, 1) }),
		"add-key": plain(func() error {
			return call(unix.SYS_ADD_KEY, text("user\x00"), text("tatami\x00"), garbage(), 8, processKeyring)
		}),
		"request-key":    plain(func() error { return call(unix.SYS_REQUEST_KEY, text("user\x00"), text("no such key\x00"), 0, 0) }),
		"io-uring":       plain(func() error { return opens(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&[128]byte{}))) }),
		"bpf":            plain(func() error { return opens(unix.SYS_BPF, 0, uintptr(unsafe.Pointer(&[4]uint32{2, 4, 4, 1})), 16) }),
		"userfaultfd":    plain(func() error { return opens(unix.SYS_USERFAULTFD, unix.O_CLOEXEC) }),
		"perf-event":     plain(func() error { return perf() }),
		"fanotify":       plain(func() error { return opens(unix.SYS_FANOTIFY_INIT, 0, 0) }),
		"open-by-handle": plain(func() error { return call(unix.SYS_OPEN_BY_HANDLE_AT, at, garbage(), 0) }),
		"kcmp":           plain(func() error { return call(unix.SYS_KCMP, uintptr(os.Getpid()), uintptr(os.Getpid()), 1, 0, 0) }),
		"personality":    plain(func() error { return call(unix.SYS_PERSONALITY, 0x0400000) }),
		"set-mempolicy":  plain(func() error { return call(unix.SYS_SET_MEMPOLICY, 0, 0, 0) }),
		"become-root":    plain(func() error { return call(unix.SYS_SETRESUID, 0, 0, 0) }),
		"join-root":      plain(func() error { return call(unix.SYS_SETRESGID, 0, 0, 0) }),
		"setgroups":      plain(func() error { return unix.Setgroups([]int{0}) }),
		"capset":         plain(capset),
		"raise-limit": plain(func() error {
			var l unix.Rlimit
			if err := unix.Getrlimit(unix.RLIMIT_CORE, &l); err != nil {
				return err
			}
			l.Max++
			return unix.Setrlimit(unix.RLIMIT_CORE, &l)
		}),
		"nice": plain(func() error { return unix.Setpriority(unix.PRIO_PROCESS, 0, -20) }),
		"realtime": plain(func() error {
			return unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}, 0)
		}),
		"setuid-file": func(a url.Values) (string, error) {
			out, err := exec.Command(a.Get("path"), "ids").CombinedOutput()
			return string(out), err
		},
	}
}

const (
	sessionKeyring = ^uintptr(2)
	processKeyring = ^uintptr(1)
)

func perf() error {
	fd, err := unix.PerfEventOpen(&unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Size: 128, Config: unix.PERF_COUNT_SW_CPU_CLOCK}, -1, 0, -1, 0)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// capset asks for the right to administer the machine.
func capset() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	data[0].Effective |= 1 << unix.CAP_SYS_ADMIN
	data[0].Permitted |= 1 << unix.CAP_SYS_ADMIN
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("capset: %w", err)
	}
	return nil
}
