//go:build linux

package attach

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrPlace says that an image has a link, or no directory or file, where a mount has to go: that is the OCI runtime's to judge.
var ErrPlace = errors.New("the image has a link or something odd in a mount's place")

// ErrLayers says that this kernel takes no overlay of so many layers without a mount point.
var ErrLayers = errors.New("the kernel is too old for a detached overlay of so many layers")

// maxValue is the longest value, its end included, that the kernel takes of one setting.
const maxValue = 256

// Root is a function's root file system before a sandbox has it. Close gives it back, attached or not.
type Root struct {
	mount int
	// owner is the user and the group whose the places are that are made, as the node numbers them.
	owner int
	// layers are what the root's layers were given as.
	layers views
	points []point
}

type point struct {
	path string
	fd   int
}

// NewRoot makes an overlay, nosuid and nodev, that is mounted nowhere. lower has the topmost layer first. Where mapping is a user
// namespace, the layers' files are owned as its users see them; kernels before 6.15 have such layers lie somewhere until Close: then a directory
// "layers" is made for them beside upper.
func NewRoot(lower []string, upper, work string, mapping *os.File) (*Root, error) {
	r := &Root{mount: -1}
	if mapping != nil {
		if err := r.layers.add(lower, mapping, filepath.Join(filepath.Dir(upper), "layers")); err != nil {
			r.Close()
			return nil, err
		}
		lower = r.layers.paths()
	}
	if err := r.make(lower, upper, work); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// make makes the overlay.
func (r *Root) make(lower []string, upper, work string) error {
	fd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("fsopen", err)
	}
	defer unix.Close(fd)
	if err := setLower(fd, lower); err != nil {
		return err
	}
	for _, o := range [][2]string{{"source", "overlay"}, {"upperdir", upper}, {"workdir", work}} {
		if err := unix.FsconfigSetString(fd, o[0], o[1]); err != nil {
			return fmt.Errorf("overlay %s=%s: %w", o[0], o[1], err)
		}
	}
	if err := unix.FsconfigCreate(fd); err != nil {
		return fmt.Errorf("overlay: %w", err)
	}
	mount, err := unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
	if err != nil {
		return os.NewSyscallError("fsmount", err)
	}
	r.mount = mount
	return nil
}

// setLower names the layers in one value as long as that fits, as every kernel takes it; else one by one, which Linux 6.7 takes.
func setLower(fd int, lower []string) error {
	if all := strings.Join(lower, ":"); len(all) < maxValue {
		if err := unix.FsconfigSetString(fd, "lowerdir", all); err != nil {
			return fmt.Errorf("overlay lowerdir=%s: %w", all, err)
		}
		return nil
	}
	for _, dir := range lower {
		if err := unix.FsconfigSetString(fd, "lowerdir+", dir); errors.Is(err, unix.EINVAL) {
			return ErrLayers
		} else if err != nil {
			return fmt.Errorf("overlay lowerdir+=%s: %w", dir, err)
		}
	}
	return nil
}

// Points opens the places of the root onto which the sandbox's mounts at the same paths will be moved, and makes those that are missing:
// directories, or empty files for paths in files, which are the owner's, a user and a group of the node. Paths are absolute and clean.
func (r *Root) Points(dirs, files []string, owner int) error {
	r.owner = owner
	for _, p := range dirs {
		if err := r.point(p, true); err != nil {
			return err
		}
	}
	for _, p := range files {
		if err := r.point(p, false); err != nil {
			return err
		}
	}
	return nil
}

func (r *Root) point(path string, dir bool) error {
	fd, err := r.open(path)
	if errors.Is(err, unix.ENOENT) {
		if err = r.create(path, dir); err == nil {
			fd, err = r.open(path)
		}
	}
	if err != nil {
		return pointError(path, err)
	}
	var st unix.Stat_t
	want := uint32(unix.S_IFREG)
	if dir {
		want = unix.S_IFDIR
	}
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != want {
		unix.Close(fd)
		return pointError(path, unix.ENOTDIR)
	}
	r.points = append(r.points, point{path, fd})
	return nil
}

func pointError(path string, err error) error {
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
		return fmt.Errorf("%w: %s", ErrPlace, path)
	}
	return &fs.PathError{Op: "mount point", Path: path, Err: err}
}

// open refuses every link, the last name's too, so no name leads out of the root.
func (r *Root) open(path string) (int, error) {
	return unix.Openat2(r.mount, strings.TrimPrefix(path, "/"), &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS,
	})
}

// create makes what is missing of the path, one name at a time.
func (r *Root) create(path string, dir bool) error {
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	at, err := unix.FcntlInt(uintptr(r.mount), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { unix.Close(at) }()
	for i, name := range parts {
		if i == len(parts)-1 && !dir {
			fd, err := unix.Openat(at, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o755)
			if err == nil {
				err = unix.Fchown(fd, r.owner, r.owner)
				unix.Close(fd)
			}
			return err
		}
		if err := r.makeDir(at, name); err != nil {
			return err
		}
		next, err := unix.Openat2(at, name, &unix.OpenHow{
			Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
		})
		if err != nil {
			return err
		}
		unix.Close(at)
		at = next
	}
	return nil
}

func (r *Root) makeDir(at int, name string) error {
	if err := unix.Mkdirat(at, name, madeMode); errors.Is(err, unix.EEXIST) {
		return nil
	} else if err != nil {
		return err
	}
	return unix.Fchownat(at, name, r.owner, r.owner, unix.AT_SYMLINK_NOFOLLOW)
}

// Mount puts the root onto a directory of this process's mount namespace.
func (r *Root) Mount(dir string) error {
	if err := unix.MoveMount(r.mount, "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return &fs.PathError{Op: "mount", Path: dir, Err: err}
	}
	return nil
}

// Close gives the root back. With a mapping it may wait for the kernel for some milliseconds.
func (r *Root) Close() {
	for _, p := range r.points {
		unix.Close(p.fd)
	}
	if r.mount >= 0 {
		unix.Close(r.mount)
	}
	// Each is a mount of its own, and the last thing that has it: its end waits until no processor looks at it any more.
	r.layers.close()
}
