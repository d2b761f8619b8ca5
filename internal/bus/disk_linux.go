package bus

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// syncData makes a file's data, and what is needed to read it back, durable. It tells which file that is, "" where the filesystem does not.
func syncData(path string) (which string, err error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: path, Err: err}
	}
	err = retryInterrupted(func() error { return unix.Fdatasync(fd) })
	if err == nil {
		which = fileOf(fd)
	}
	_ = unix.Close(fd)
	if err != nil {
		return "", &os.PathError{Op: "fdatasync", Path: path, Err: err}
	}
	return which, nil
}

// fileOf is the filesystem's handle of an open file: unlike the inode's number it is not given to a later file. "" where there are none.
func fileOf(fd int) string {
	handle, _, err := unix.NameToHandleAt(fd, "", unix.AT_EMPTY_PATH)
	if err != nil {
		return ""
	}
	return string(handle.Bytes())
}

// syncPath makes a file or a directory durable.
func syncPath(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	err = retryInterrupted(func() error { return unix.Fsync(fd) })
	_ = unix.Close(fd)
	if err != nil {
		return &os.PathError{Op: "fsync", Path: path, Err: err}
	}
	return nil
}

// syncFilesystem makes everything on the filesystem of path durable.
func syncFilesystem(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	err = retryInterrupted(func() error { return unix.Syncfs(fd) })
	_ = unix.Close(fd)
	if err != nil {
		return &os.PathError{Op: "syncfs", Path: path, Err: err}
	}
	return nil
}

func retryInterrupted(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// diskSize is the size of the filesystem of path in bytes.
func diskSize(path string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	return int64(st.Blocks) * st.Bsize, nil
}

// diskFree is what an ordinary process may still write on the filesystem of path, in bytes.
func diskFree(path string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// durabilityOf returns "" where the filesystem of path is one on which power was taken from the store without a loss, mounted with its defaults; else
// the sentence that says so. It keeps the order of names, which the spares rely on.
func durabilityOf(path string) (string, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return "", &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	var info unix.Stat_t
	if err := unix.Stat(path, &info); err != nil {
		return "", &os.PathError{Op: "stat", Path: path, Err: err}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("reading the mounts: %w", err)
	}
	return judge(path, st.Type, unix.Major(info.Dev), unix.Minor(info.Dev), string(mounts)), nil
}

// judge decides durability from the filesystem's magic number, its device and the text of mountinfo.
func judge(path string, magic int64, major, minor uint32, mountinfo string) string {
	// ext2, ext3 and ext4 share a magic number: mountinfo tells them apart.
	fstype, options := "", ""
	dev := fmt.Sprintf("%d:%d", major, minor)
	for line := range strings.Lines(mountinfo) {
		head, tail, ok := strings.Cut(strings.TrimSpace(line), " - ")
		fields, after := strings.Fields(head), strings.Fields(tail)
		if !ok || len(fields) < 6 || len(after) < 3 || fields[2] != dev {
			continue
		}
		fstype, options = after[0], fields[5]+","+after[2]
	}
	const loss = "power loss may lose accepted work: "
	switch {
	case magic != unix.EXT4_SUPER_MAGIC || fstype != "ext4" && fstype != "":
		if fstype == "" {
			fstype = fmt.Sprintf("of type %#x", magic)
		}
		return loss + path + " lies on a filesystem (" + fstype + ") that is not ext4"
	case hasOption(options, "noauto_da_alloc"):
		return loss + path + " lies on ext4 mounted with noauto_da_alloc"
	case hasOption(options, "nobarrier") || hasOption(options, "barrier=0"):
		return loss + path + " lies on ext4 mounted without write barriers"
	}
	return ""
}

func hasOption(options, want string) bool {
	for o := range strings.SplitSeq(options, ",") {
		if o == want {
			return true
		}
	}
	return false
}
