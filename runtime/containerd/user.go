//go:build linux

package containerd

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"

	"github.com/tatami-faas/tatami/internal/fault"
)

// nobody is whom a process runs as whose image names no user, or root, where there is no user namespace for it.
const nobody = 65532

const maxUserFile = 1 << 20

// identityOf is whom an artifact's processes run as.
type identityOf struct {
	uid, gid uint32
	groups   []uint32
	// home is the user's, as the image says. A user that we chose is in no passwd file, and the image's idea of its home would not be writable.
	home string
	// chosen says that the image did not name a user that may be used.
	chosen bool
	// mapped says that the image names root, or nobody, and that the process is root of a user namespace.
	mapped bool
}

// resolveUser finds the numbers for the image's user, by the image's own files.
func (d *Driver) resolveUser(name string, view []mount.Mount, lower []string) (identityOf, error) {
	if name == "" || name == "root" {
		name = "0"
	}
	if name == "0" && d.noRoot != "" {
		return identityOf{uid: nobody, gid: nobody, home: "/tmp", chosen: true}, nil
	}
	var passwd, group []byte
	read := func(root string) error {
		var err error
		if passwd, err = readInRoot(root, "etc/passwd"); err != nil {
			return err
		}
		group, err = readInRoot(root, "etc/group")
		return err
	}
	var err error
	if len(lower) == 1 {
		err = read(lower[0])
	} else {
		err = d.withMounted(view, read)
	}
	if err != nil {
		return identityOf{}, fmt.Errorf("read the image's users: %w", err)
	}
	u, err := user.GetExecUser(name, nil, bytes.NewReader(passwd), bytes.NewReader(group))
	if err != nil {
		return identityOf{}, fault.Wrap(fault.CodeInvalidArtifact, err, "the image's user %q is not among the users it has", name).
			WithHint("set a USER in the image that its /etc/passwd knows, or a number")
	}
	if u.Uid == 0 && d.noRoot != "" {
		return identityOf{uid: nobody, gid: nobody, home: "/tmp", chosen: true}, nil
	}
	out := identityOf{uid: uint32(u.Uid), gid: uint32(u.Gid), home: u.Home, mapped: u.Uid == 0}
	for _, g := range u.Sgids {
		out.groups = append(out.groups, uint32(g))
	}
	return out, nil
}

// withMounted calls f with a directory on which the mounts lie.
func (d *Driver) withMounted(mounts []mount.Mount, f func(root string) error) (err error) {
	dir, err := os.MkdirTemp(d.cfg.mountRoot(), "view-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(dir)) }()
	if err := mount.All(mounts, dir); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unmount(dir)) }()
	return f(dir)
}

// readInRoot reads a file as a process would whose root is root: no link leads out of it. A file that is missing is empty.
func readInRoot(root, name string) ([]byte, error) {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: root, Err: err}
	}
	defer unix.Close(dir)
	// Not blocking: it might be a FIFO.
	how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	fd, err := unix.Openat2(dir, name, &how)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil, nil
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(f, maxUserFile))
}

// unmount takes everything away that is mounted on the directory; nothing mounted is no error.
func unmount(dir string) error {
	err := mount.UnmountAll(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err != nil && (errors.Is(err, os.ErrNotExist) || strings.Contains(err.Error(), "invalid argument")) {
		return nil
	}
	return err
}
