//go:build linux

package attach

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// NewRootDir is where the sandbox's old root has a directory for the new one.
const NewRootDir = "/newroot"

// Place is a sandbox that waits.
type Place struct {
	// Process is its init's: a descriptor of pidfd_open(2).
	Process *os.File
}

// Setting is what the function's surroundings have of their own.
type Setting struct {
	Hostname string
	// Cwd is made where it is missing.
	Cwd string
	// ReadOnly makes the root read-only at the end.
	ReadOnly bool
}

// madeMode is that of a directory that is made.
const madeMode = 0o755

// Enter makes root the sandbox's root and moves the sandbox's own mounts to root's points. After an error the sandbox is spoilt. It calls hand when only
// the old root has still to go, which lies on the new one, where a name with ".." may lead to it; and begin when everything is in place.
func Enter(p Place, root *Root, s Setting, hand, begin func() error) error {
	return onLostThread(func() error {
		if err := enter(p, root, s, hand); err != nil {
			return err
		}
		// Here, as the way back from this thread takes its time.
		return begin()
	})
}

// Rename gives the sandbox of the process another host name.
func Rename(process *os.File, hostname string) error {
	return onLostThread(func() error {
		if err := join(process, unix.CLONE_NEWUTS); err != nil {
			return err
		}
		return os.NewSyscallError("sethostname", unix.Sethostname([]byte(hostname)))
	})
}

func enter(p Place, root *Root, s Setting, hand func() error) error {
	// Root and working directory must be this thread's own to be changed with the namespace.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	if err := join(p.Process, unix.CLONE_NEWUTS|unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(s.Hostname)); err != nil {
		return os.NewSyscallError("sethostname", err)
	}
	if err := unix.MoveMount(root.mount, "", unix.AT_FDCWD, NewRootDir, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach the root: %w", err)
	}
	for _, at := range root.points {
		if err := unix.MoveMount(unix.AT_FDCWD, at.path, at.fd, "", unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
			return fmt.Errorf("move the mount %s: %w", at.path, err)
		}
	}
	if err := unix.Fchdir(root.mount); err != nil {
		return os.NewSyscallError("fchdir", err)
	}
	// Both names are the new root; the old one then lies on top of it.
	if err := unix.PivotRoot(".", "."); err != nil {
		return os.NewSyscallError("pivot_root", err)
	}
	if err := hand(); err != nil {
		return err
	}
	// The kernel waits until no processor looks at it any more.
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detach the old root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return os.NewSyscallError("chdir", err)
	}
	// This thread's root is the function's now, so no link leads out of it. Should it fail, the init says that the directory is missing.
	if s.Cwd != "/" {
		_ = makeAll(s.Cwd, root.owner)
	}
	if s.ReadOnly {
		attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
		if err := unix.MountSetattr(unix.AT_FDCWD, "/", 0, &attr); err != nil {
			return fmt.Errorf("make the root read-only: %w", err)
		}
	}
	return nil
}

// makeAll makes the directory and those above it that are missing, as the owner's.
func makeAll(dir string, owner int) error {
	if err := unix.Mkdir(dir, madeMode); errors.Is(err, unix.ENOENT) {
		if err := makeAll(filepath.Dir(dir), owner); err != nil {
			return err
		}
		if err := unix.Mkdir(dir, madeMode); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	return unix.Lchown(dir, owner, owner)
}

// join enters the process's namespaces of these kinds, in one call.
func join(process *os.File, kinds int) error {
	raw, err := process.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = raw.Control(func(fd uintptr) { inner = unix.Setns(int(fd), kinds) })
	return errors.Join(err, os.NewSyscallError("setns", inner))
}
