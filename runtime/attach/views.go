//go:build linux

package attach

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// views are layers seen with other owners: mounts that are nowhere but in their descriptors, or at one place, one on top of the other.
type views struct {
	fds []int
	// placed is how many of them lie there.
	placed int
}

// add makes a view of each layer. What was made is kept with an error, too.
func (v *views) add(lower []string, mapping *os.File, place string) error {
	for _, dir := range lower {
		fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return &fs.PathError{Op: "open_tree", Path: dir, Err: err}
		}
		v.fds = append(v.fds, fd)
		// Private: where the node shares its mounts, what lies on a view would lie on the layer, too.
		attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Propagation: unix.MS_PRIVATE, Userns_fd: uint64(mapping.Fd())}
		if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
			return fmt.Errorf("map the owners of the layer %s: %w", dir, err)
		}
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return os.NewSyscallError("uname", err)
	}
	if takesDetached(unix.ByteSliceToString(name.Release[:])) {
		return nil
	}
	return v.lieAt(place)
}

// takesDetached reports whether a kernel makes overlays of mounts that lie nowhere, as Linux 6.15 was the first to do. To ask the kernel itself
// would have it complain in its log at each start.
func takesDetached(release string) bool {
	var major, minor int
	if n, err := fmt.Sscanf(release, "%d.%d", &major, &minor); n != 2 || err != nil {
		return false
	}
	return major > 6 || major == 6 && minor >= 15
}

// lieAt mounts the views at the place. Their descriptors go on to name them.
func (v *views) lieAt(place string) error {
	if err := os.Mkdir(place, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	for _, fd := range v.fds {
		if err := unix.MoveMount(fd, "", unix.AT_FDCWD, place, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return &fs.PathError{Op: "mount", Path: place, Err: err}
		}
		v.placed++
	}
	return nil
}

func (v *views) paths() []string {
	out := make([]string, len(v.fds))
	for i, fd := range v.fds {
		out[i] = pathOf(fd)
	}
	return out
}

func pathOf(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

func (v *views) close() {
	for range v.placed {
		// What lies on the others, each time. Should one stay, it goes with what the place lies in.
		_ = unix.Unmount(pathOf(v.fds[0]), unix.MNT_DETACH)
	}
	for _, fd := range v.fds {
		unix.Close(fd)
	}
}
