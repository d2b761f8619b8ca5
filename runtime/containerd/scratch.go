//go:build linux

package containerd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/api/types"
	"golang.org/x/sys/unix"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/runtime/sandbox"
)

// noNameservers names no server: there is no network, and a name is refused at once rather than after a timeout.
const noNameservers = "# This sandbox has a loopback device only.\noptions timeout:1 attempts:1\n"

// scratch is a sandbox's own tmpfs: the overlay's upper layer, /tmp, /dev/shm and a few files, all within one size.
type scratch string

func (d *Driver) scratch(id string) scratch { return scratch(filepath.Join(d.cfg.scratchRoot(), id)) }

func (s scratch) upper() string           { return filepath.Join(string(s), "upper") }
func (s scratch) work() string            { return filepath.Join(string(s), "work") }
func (s scratch) root() string            { return filepath.Join(string(s), "root") }
func (s scratch) tmp() string             { return filepath.Join(string(s), "tmp") }
func (s scratch) shm() string             { return filepath.Join(string(s), "shm") }
func (s scratch) file(name string) string { return filepath.Join(string(s), name) }

// make mounts the tmpfs and fills it.
func (s scratch) make(limits functions.Limits, n names) error {
	if err := os.Mkdir(string(s), 0o700); err != nil {
		return err
	}
	if err := unix.Mount("tatami", string(s), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, sized(limits)); err != nil {
		return &fs.PathError{Op: "mount", Path: string(s), Err: err}
	}
	for _, dir := range []string{s.upper(), s.work(), s.tmp(), s.shm()} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	for _, dir := range []string{s.tmp(), s.shm()} {
		if err := os.Chmod(dir, fs.ModeSticky|0o777); err != nil {
			return err
		}
	}
	if err := os.Chmod(s.upper(), 0o755); err != nil {
		return err
	}
	for _, file := range []string{"hosts", "hostname", "resolv.conf"} {
		if err := os.WriteFile(s.file(file), nil, 0o644); err != nil {
			return err
		}
		// Whatever our umask.
		if err := os.Chmod(s.file(file), 0o644); err != nil {
			return err
		}
	}
	return s.name(n)
}

// become gives a scratch that was made ahead the size and the names of its function.
func (s scratch) become(limits functions.Limits, n names) error {
	if err := unix.Mount("tatami", string(s), "tmpfs", unix.MS_REMOUNT|unix.MS_NOSUID|unix.MS_NODEV, sized(limits)); err != nil {
		return &fs.PathError{Op: "remount", Path: string(s), Err: err}
	}
	return s.name(n)
}

// sized are the mount's options. An inode takes kernel memory beside its pages: there are as many as pages.
func sized(limits functions.Limits) string {
	if limits.Ephemeral <= 0 {
		return "mode=0700"
	}
	return fmt.Sprintf("mode=0700,size=%d,nr_inodes=%d", limits.Ephemeral, limits.Ephemeral/4096+64)
}

// names are what a sandbox is told of its name and of others'.
type names struct{ hostname, resolvConf string }

// names are those of a sandbox with the specification.
func (d *Driver) names(s sandbox.Spec, hostname string) (names, error) {
	if !s.Egress {
		return names{hostname, noNameservers}, nil
	}
	text, err := d.egress.ResolvConf()
	return names{hostname, text}, err
}

// name fills the files that tell the sandbox the names.
func (s scratch) name(n names) error {
	for name, text := range map[string]string{
		"hosts":       "127.0.0.1 localhost " + n.hostname + "\n::1 localhost ip6-localhost ip6-loopback " + n.hostname + "\n",
		"hostname":    n.hostname + "\n",
		"resolv.conf": n.resolvConf,
	} {
		if err := write(string(s), name, text); err != nil {
			return err
		}
	}
	return nil
}

// remove takes it away, made or half made.
func (s scratch) remove() error {
	if err := unmount(string(s)); err != nil {
		return err
	}
	// Not RemoveAll: should something still be mounted, its files are not ours to remove.
	if err := os.Remove(string(s)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// rootfs is the overlay of the artifact's layers under the scratch.
func (s scratch) rootfs(art *artifact) *types.Mount {
	lower := ""
	for i, dir := range art.lower {
		if i > 0 {
			lower += ":"
		}
		lower += dir
	}
	return &types.Mount{Type: "overlay", Source: "overlay", Options: []string{
		"nosuid", "nodev", "lowerdir=" + lower, "upperdir=" + s.upper(), "workdir=" + s.work(),
	}}
}
