//go:build linux

package containerd

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// What makes a container ahead works in a cgroup beside the parent of all sandboxes: functions, however many run, have the processors before it, and
// yet it goes on. On v1 that is so of the processors only, and everything else stays the worker's.

const (
	// makingPart is what part of the processors' time the making of a container gets where functions want all of it, one in so many.
	makingPart = 16
	// defaultShares and defaultWeight are a cgroup's where nothing else is said.
	defaultShares = 1024
	defaultWeight = 100
)

// beside is where a process of the hierarchy of processors is, by its path there.
func (c *cgroups) beside(path string) string {
	if c.v2 {
		return filepath.Join(c.root, path)
	}
	return filepath.Join(c.root, "cpu", path)
}

// aside is the cgroup's directory.
func (c *cgroups) aside() string { return c.beside(c.parent + "-making") }

// setupAside makes it.
func (c *cgroups) setupAside() error {
	if err := os.MkdirAll(c.aside(), 0o755); err != nil {
		return err
	}
	if c.v2 {
		return write(c.aside(), "cpu.weight", strconv.Itoa(defaultWeight/makingPart))
	}
	return write(c.aside(), "cpu.shares", strconv.Itoa(defaultShares/makingPart))
}

// openAside returns it for a process to be started there; nil on v1, which cannot do that.
func (c *cgroups) openAside() (*os.File, error) {
	if !c.v2 {
		return nil, nil
	}
	return os.Open(c.aside())
}

// stepAside moves a process there that could not be started there.
func (c *cgroups) stepAside(pid int) error {
	if c.v2 {
		return nil
	}
	return write(c.aside(), "cgroup.procs", strconv.Itoa(pid))
}

// home is the directory of this process's own cgroup. An error says that there is no way back to it.
func (c *cgroups) home() (string, error) {
	raw, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	own, err := c.placeIn(string(raw))
	if err != nil {
		return "", err
	}
	_, err = os.Stat(filepath.Join(c.beside(own), "cgroup.procs"))
	return c.beside(own), err
}

// comeBack moves a process to where this one is.
func (c *cgroups) comeBack(pid int) error {
	home, err := c.home()
	if err != nil {
		return err
	}
	return write(home, "cgroup.procs", strconv.Itoa(pid))
}

// placeIn finds the path in the hierarchy of processors in what the kernel says of a process.
func (c *cgroups) placeIn(lines string) (string, error) {
	for line := range strings.Lines(lines) {
		if f := strings.SplitN(strings.TrimSpace(line), ":", 3); len(f) == 3 && (c.v2 && f[0] == "0" || !c.v2 && controls(f[1], "cpu")) {
			return f[2], nil
		}
	}
	return "", fmt.Errorf("this process is in no cgroup of the processors: %q", lines)
}

// removeAside takes it away, with what may still be in it.
func (c *cgroups) removeAside() error {
	return removeBusy(c.aside(), func() { killTree(c.aside()) })
}
