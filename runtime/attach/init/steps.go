//go:build linux

package main

import (
	"errors"
	"syscall"
	"unsafe"

	"github.com/tatami-faas/tatami/runtime/attach/wire"
)

const (
	keyctlJoinSession = 1
	siocgifflags      = 0x8913
	siocsifflags      = 0x8914
	iffUp             = 1
	// mountKept are the flags that a remount must repeat: it would clear them.
	mountKept = syscall.MS_NOSUID | syscall.MS_NODEV | syscall.MS_NOEXEC | syscall.MS_RELATIME | syscall.MS_NOATIME | syscall.MS_NODIRATIME
)

// do does one step, and says why it cannot.
func do(s *wire.Step) string {
	name, err := "", error(nil)
	switch s.Op {
	case wire.OpMount:
		name, err = "mount", syscall.Mount(s.Source, s.Path, s.Kind, uintptr(s.Number), s.Data)
	case wire.OpMkdir:
		if name, err = "mkdir", syscall.Mkdir(s.Path, uint32(s.Number)); errors.Is(err, syscall.EEXIST) {
			err = nil
		}
	case wire.OpMknod:
		name, err = "mknod", mknod(s)
	case wire.OpSymlink:
		name, err = "symlink", syscall.Symlink(s.Source, s.Path)
	case wire.OpWrite:
		name, err = "write", write(s.Path, s.Data)
	case wire.OpMask:
		name, err = "mask", mask(s.Path, s.Data)
	case wire.OpReadOnly:
		name, err = "make read-only", readOnly(s.Path)
	case wire.OpPivot:
		name, err = "pivot_root", pivot(s.Path)
	case wire.OpUnshare:
		name, err = "unshare", syscall.Unshare(int(s.Number))
	case wire.OpLoopback:
		name, err = "bring the loopback device up", loopback()
	case wire.OpKeyring:
		name, err = "new session keyring", keyring(s.Source)
	case wire.OpSession:
		name = "setsid"
		_, err = syscall.Setsid()
	case wire.OpChown:
		name, err = "chown", syscall.Lchown(s.Path, int(s.Number), int(s.Device))
	case wire.OpUsers:
		name, err = "enter a user namespace", startAnew()
	case wire.OpRoot:
		name, err = "become root", becomeRoot()
	default:
		return "a setup's step is of an unknown kind"
	}
	if err != nil {
		return name + " " + s.Path + ": " + err.Error()
	}
	return ""
}

func mknod(s *wire.Step) error {
	if err := syscall.Mknod(s.Path, uint32(s.Number), int(s.Device)); err != nil {
		return err
	}
	// Whatever the umask.
	return syscall.Chmod(s.Path, uint32(s.Number)&0o777)
}

func write(path, data string) error {
	fd, err := syscall.Open(path, syscall.O_WRONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	_, err = syscall.Write(fd, []byte(data))
	return err
}

func mask(path, data string) error {
	err := syscall.Mount("/dev/null", path, "", syscall.MS_BIND, "")
	if err == syscall.ENOTDIR {
		err = syscall.Mount("tmpfs", path, "tmpfs", syscall.MS_RDONLY, data)
	}
	if err == syscall.ENOENT {
		return nil
	}
	return err
}

func readOnly(path string) error {
	if err := syscall.Mount(path, path, "", syscall.MS_BIND|syscall.MS_REC, ""); err == syscall.ENOENT {
		return nil
	} else if err != nil {
		return err
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil {
		return err
	}
	kept := uintptr(st.Flags) & mountKept
	return syscall.Mount(path, path, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY|kept, "")
}

func pivot(path string) error {
	if err := syscall.Chdir(path); err != nil {
		return err
	}
	// Both names are the new root; the old one then lies on top of it.
	if err := syscall.PivotRoot(".", "."); err != nil {
		return err
	}
	if err := syscall.Unmount(".", syscall.MNT_DETACH); err != nil {
		return err
	}
	return syscall.Chdir("/")
}

func loopback() error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	request := struct {
		name  [16]byte
		flags uint16
		_     [22]byte
	}{name: [16]byte{'l', 'o'}}
	for _, call := range []uintptr{siocgifflags, siocsifflags} {
		if _, _, e := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), call, uintptr(unsafe.Pointer(&request))); e != 0 {
			return e
		}
		request.flags |= iffUp
	}
	return nil
}

// keyring leaves the node's session keyring. A kernel without keyrings needs none.
func keyring(name string) error {
	p, err := syscall.BytePtrFromString(name)
	if err != nil {
		return err
	}
	if _, _, e := syscall.Syscall(syscall.SYS_KEYCTL, keyctlJoinSession, uintptr(unsafe.Pointer(p)), 0); e != 0 && e != syscall.ENOSYS {
		return e
	}
	return nil
}
