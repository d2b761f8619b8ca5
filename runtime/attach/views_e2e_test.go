//go:build linux && e2e

package attach

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestViewsThatLieSomewhere: an overlay of mapped layers is made as kernels take it that want them mounted, on a node that shares its mounts. The
// layers themselves stay as they are, and nothing stays mounted.
func TestViewsThatLieSomewhere(t *testing.T) {
	path, must := ground(t)
	must(unix.Mount("", path(""), "", unix.MS_SHARED, ""))
	lower := []string{path("top"), path("middle"), path("bottom")}
	for _, layer := range lower {
		must(os.Mkdir(layer, 0o755))
		must(os.WriteFile(filepath.Join(layer, filepath.Base(layer)), nil, 0o600))
	}
	for _, name := range []string{"upper", "work"} {
		must(os.Mkdir(path(name), 0o755))
	}

	const owner = 0x7000_0000
	r := &Root{mount: -1}
	defer r.Close()
	must(r.layers.add(lower, mappingTo(t, owner), path("layers")))
	if r.layers.placed == 0 {
		must(r.layers.lieAt(path("layers")))
	}
	must(r.make(r.layers.paths(), path("upper"), path("work")))
	for _, layer := range lower {
		name := filepath.Base(layer)
		var st unix.Stat_t
		must(unix.Fstatat(r.mount, name, &st, 0))
		if st.Uid != owner {
			t.Errorf("%s is owned by %d in the root, want %d", name, st.Uid, owner)
		}
		entries, err := os.ReadDir(layer)
		if err != nil || len(entries) != 1 || entries[0].Name() != name {
			t.Errorf("the layer %s holds %v, %v while the root is there", name, entries, err)
		}
	}
	r.Close()
	r.mount, r.layers = -1, views{}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	must(err)
	if strings.Contains(string(mounts), path("layers")) {
		t.Errorf("a view is still mounted:\n%s", mounts)
	}
}

// mappingTo opens a user namespace whose root is the node's user owner.
func mappingTo(t *testing.T, owner int) *os.File {
	t.Helper()
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: owner, Size: 1 << 16}}
	child := exec.Command("sleep", "infinity")
	child.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = child.Process.Kill()
		_ = child.Wait()
	}()
	f, err := os.Open(filepath.Join("/proc", strconv.Itoa(child.Process.Pid), "ns", "user"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}
