//go:build linux

package containerd

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tatami-faas/tatami/internal/fault"
)

// checkPlaces refuses an image in which /dev, /proc or /sys is a link. The OCI runtime fills these before the image is the process's root,
// and runc 1.1.5 makes its links in /dev where a link in its place leads to on the node. lower has the topmost layer first.
func checkPlaces(lower []string) error {
	for _, name := range []string{"dev", "proc", "sys"} {
		for _, dir := range lower {
			st, err := os.Lstat(filepath.Join(dir, name))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return err
			}
			if st.Mode()&fs.ModeSymlink != 0 {
				return fault.New(fault.CodeInvalidArtifact, "the image has a link at /%s, where the sandbox's own directory goes", name).
					WithHint("remove it from the image: a directory, or nothing, has to be there")
			}
			// What a layer has hides what those below have.
			break
		}
	}
	return nil
}
