//go:build linux

package containerd

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf/asm"
	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// make makes a sandbox's cgroup as the OCI runtime would, with no process in it. On v1 it takes part in every hierarchy of the node's.
func (c *cgroups) make(id string, r *specs.LinuxResources) error {
	for _, tree := range c.controlled() {
		err := unix.Mkdir(c.in(tree, id), 0o755)
		if errors.Is(err, unix.ENOENT) {
			if err := os.MkdirAll(c.in(tree, ""), 0o755); err != nil {
				return err
			}
			err = unix.Mkdir(c.in(tree, id), 0o755)
		}
		if err != nil {
			return &fs.PathError{Op: "mkdir", Path: c.in(tree, id), Err: err}
		}
		if c.v2 || !controls(tree, "cpuset") {
			continue
		}
		if err := c.inheritCPUs(tree, c.path(id)); err != nil {
			return err
		}
	}
	if err := c.limitDevices(id); err != nil {
		return fmt.Errorf("the device cgroup: %w", err)
	}
	return c.limit(id, r)
}

// controls reports whether the hierarchy, named by its controllers, has that one.
func controls(tree, controller string) bool {
	return slices.Contains(strings.Split(filepath.Base(tree), ","), controller)
}

// inheritCPUs gives a path of cgroups what processors and memory nodes the one above has, where none are set: on v1 no process may enter before.
// On v2 none set means those above, and the root has no such files.
func (c *cgroups) inheritCPUs(tree, path string) error {
	if c.v2 {
		return nil
	}
	dir := tree
	for part := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		above := dir
		dir = filepath.Join(dir, part)
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			own, err := os.ReadFile(filepath.Join(dir, file))
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			if len(bytes.TrimSpace(own)) > 0 {
				continue
			}
			theirs, err := os.ReadFile(filepath.Join(above, file))
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(dir, file), theirs, 0); err != nil {
				return err
			}
		}
	}
	return nil
}

// enter moves a process into the sandbox's cgroup. On v1 the kernel may let it wait for some milliseconds.
func (c *cgroups) enter(id string, pid int) error {
	for _, tree := range c.controlled() {
		if err := write(c.in(tree, id), "cgroup.procs", strconv.Itoa(pid)); err != nil {
			return err
		}
	}
	return nil
}

// open returns the directory of the sandbox's cgroup, for a process to be started in it; nil on v1, which cannot do that.
func (c *cgroups) open(id string) (*os.File, error) {
	if !c.v2 {
		return nil, nil
	}
	return os.Open(c.dir("", id))
}

// processes lists the processes of the sandbox.
func (c *cgroups) processes(id string) []int {
	raw, err := os.ReadFile(filepath.Join(c.dir("pids", id), "cgroup.procs"))
	if err != nil {
		return nil
	}
	var out []int
	for _, field := range strings.Fields(string(raw)) {
		if pid, err := strconv.Atoi(field); err == nil {
			out = append(out, pid)
		}
	}
	return out
}

// every stands for all numbers in a device's rule.
const every = -1

// allowedDevices are those that every OCI container may use. Making a device is allowed, which takes a capability that none has.
func allowedDevices() []specs.LinuxDeviceCgroup {
	rule := func(kind string, major, minor int64, access string) specs.LinuxDeviceCgroup {
		return specs.LinuxDeviceCgroup{Allow: true, Type: kind, Major: &major, Minor: &minor, Access: access}
	}
	char := func(major, minor int64) specs.LinuxDeviceCgroup { return rule("c", major, minor, "rwm") }
	return []specs.LinuxDeviceCgroup{
		rule("c", every, every, "m"), rule("b", every, every, "m"),
		char(1, 3), char(1, 8), char(1, 7), char(5, 0), char(1, 5), char(1, 9), char(136, every), char(5, 2),
	}
}

func (c *cgroups) limitDevices(id string) error {
	if c.v2 {
		return c.limitDevicesV2(id)
	}
	dir := c.dir("devices", id)
	if err := write(dir, "devices.deny", "a"); err != nil {
		return err
	}
	for _, d := range allowedDevices() {
		if err := write(dir, "devices.allow", deviceRule(d)); err != nil {
			return err
		}
	}
	return nil
}

func deviceRule(d specs.LinuxDeviceCgroup) string {
	number := func(n *int64) string {
		if *n == every {
			return "*"
		}
		return strconv.FormatInt(*n, 10)
	}
	return d.Type + " " + number(d.Major) + ":" + number(d.Minor) + " " + d.Access
}

// deviceProgram judges every use of a device: what is not allowed is refused.
func deviceProgram() (asm.Instructions, string, error) {
	all := int64(every)
	refuse := specs.LinuxDeviceCgroup{Type: "a", Major: &all, Minor: &all, Access: "rwm"}
	return cgroup2.DeviceFilter(append([]specs.LinuxDeviceCgroup{refuse}, allowedDevices()...))
}

// limitDevicesV2 attaches the program that judges, which goes with the cgroup.
func (c *cgroups) limitDevicesV2(id string) error {
	program, license, err := deviceProgram()
	if err != nil {
		return err
	}
	dir, err := unix.Open(c.dir("", id), unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	_, err = cgroup2.LoadAttachCgroupDeviceFilter(program, license, dir)
	return err
}
