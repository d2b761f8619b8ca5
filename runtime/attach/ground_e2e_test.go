//go:build linux && e2e

package attach

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// ground mounts a directory for the layers of overlays, which takes root: an overlay, which /tmp may be, holds none. path leads into it, and must ends
// the test with an error.
func ground(t *testing.T) (path func(name string) string, must func(error)) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test mounts and needs root; run 'make e2e' as root")
	}
	dir := t.TempDir()
	must = func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(unix.Mount("tatami", dir, "tmpfs", 0, ""))
	t.Cleanup(func() { must(unix.Unmount(dir, unix.MNT_DETACH)) })
	return func(name string) string { return filepath.Join(dir, name) }, must
}
