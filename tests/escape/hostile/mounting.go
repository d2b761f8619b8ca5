//go:build linux

package main

import (
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// mounting changes what the process finds where, or makes namespaces in which it might.
func mounting() map[string]attempt {
	unshare := func(flag int) attempt {
		return plain(func() error {
			done := make(chan error)
			go func() {
				// The thread ends with the goroutine.
				runtime.LockOSThread()
				done <- unix.Unshare(flag)
			}()
			return <-done
		})
	}
	return map[string]attempt{
		"mount":        plain(func() error { return unix.Mount("none", "/tmp", "tmpfs", 0, "") }),
		"mount-proc":   plain(func() error { return unix.Mount("proc", "/tmp", "proc", 0, "") }),
		"mount-cgroup": plain(func() error { return unix.Mount("cgroup", "/tmp", "cgroup2", 0, "") }),
		"bind-mount":   plain(func() error { return unix.Mount("/", "/tmp", "", unix.MS_BIND, "") }),
		"remount":      plain(func() error { return unix.Mount("", "/proc", "", unix.MS_REMOUNT|unix.MS_BIND, "") }),
		"propagation":  plain(func() error { return unix.Mount("", "/", "", unix.MS_SHARED|unix.MS_REC, "") }),
		"umount":       plain(func() error { return unix.Unmount("/proc", unix.MNT_DETACH) }),
		"fsopen":       plain(func() error { return opens(unix.SYS_FSOPEN, text("tmpfs\x00"), 0) }),
		"fspick":       plain(func() error { return opens(unix.SYS_FSPICK, at, text("/proc\x00"), 0) }),
		"open-tree":    plain(func() error { return opens(unix.SYS_OPEN_TREE, at, text("/\x00"), unix.OPEN_TREE_CLONE) }),
		"move-mount":   plain(func() error { return call(unix.SYS_MOVE_MOUNT, at, text("/proc\x00"), at, text("/tmp\x00"), 0) }),
		"mount-setattr": plain(func() error {
			return unix.MountSetattr(unix.AT_FDCWD, "/proc", 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NODEV})
		}),
		"pivot-root":    plain(func() error { return unix.PivotRoot("/", "/tmp") }),
		"chroot":        plain(func() error { return unix.Chroot("/") }),
		"unshare-user":  unshare(unix.CLONE_NEWUSER),
		"unshare-mount": unshare(unix.CLONE_NEWNS),
		"unshare-net":   unshare(unix.CLONE_NEWNET),
		"unshare-pid":   unshare(unix.CLONE_NEWPID),
		"unshare-ipc":   unshare(unix.CLONE_NEWIPC),
		"unshare-uts":   unshare(unix.CLONE_NEWUTS),
		"unshare-time":  unshare(unix.CLONE_NEWTIME),
		"clone-user":    clone(syscall.CLONE_NEWUSER),
		"clone-all":     clone(syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET),
		"clone3":        plain(func() error { return call(unix.SYS_CLONE3, 0, 0) }),
		"setns": plain(func() error {
			f, err := os.Open("/proc/self/ns/uts")
			if err != nil {
				return err
			}
			defer f.Close()
			return unix.Setns(int(f.Fd()), unix.CLONE_NEWUTS)
		}),
		"sethostname":   plain(func() error { return unix.Sethostname([]byte("mine")) }),
		"setdomainname": plain(func() error { return unix.Setdomainname([]byte("mine")) }),
	}
}

func clone(flags uintptr) attempt {
	return func(url.Values) (string, error) {
		cmd := exec.Command("/proc/self/exe", "ids")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
}
