//go:build linux

package containerd

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tatami-faas/tatami/functions"
)

const (
	cgroupRoot = "/sys/fs/cgroup"
	// The parent's limit must never fire, each sandbox is held by its own: so it has a margin for what the kernel charges to the parent
	// itself: 10 to 30 KiB for each sandbox that runs or ran, measured. The shims are not in it.
	parentMargin     = 64 * functions.MiB
	parentMarginEach = 256 * functions.KiB
	parentMarginCPU  = 100
	cpuPeriod        = 100_000
	// removeTime is how long a cgroup may stay busy: a killed process keeps it until its parent has taken its exit, and where the shim
	// has died that is the node's first process, in its own time.
	removeTime = 5 * time.Second
)

// cgroups knows the parent cgroup and its children, one for each sandbox, on either version of the kernel's interface.
type cgroups struct {
	root, parent string
	v2           bool
	// known are the hierarchies and those of them with controllers, found once; nil: they are looked for each time.
	known func() (all, controlled []string)
	// kernel is what the kernel can, asked once there is the parent; nil: it is asked each time.
	kernel func() abilities
}

// abilities are what not every kernel can: limit swap, and show a process its own cgroup for the root.
type abilities struct{ swap, namespaces bool }

func newCgroups(root, parent string) *cgroups {
	var st unix.Statfs_t
	v2 := unix.Statfs(root, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
	c := &cgroups{root: root, parent: parent, v2: v2}
	c.known, c.kernel = sync.OnceValues(c.find), sync.OnceValue(c.ask)
	return c
}

// path is a sandbox's cgroup as the OCI runtime is told it.
func (c *cgroups) path(id string) string { return filepath.Join(c.parent, id) }

// dir is where a file of the controller lies for the sandbox; id "" is the parent.
func (c *cgroups) dir(controller, id string) string {
	if c.v2 {
		return filepath.Join(c.root, c.parent, id)
	}
	return filepath.Join(c.root, controller, c.parent, id)
}

// trees lists the hierarchies' roots: one on v2.
func (c *cgroups) trees() []string {
	all, _ := c.look()
	return all
}

// controlled are the hierarchies in which the OCI runtime makes cgroups: on v1 not the one of v2's kind that may lie beside.
func (c *cgroups) controlled() []string {
	_, controlled := c.look()
	return controlled
}

// unified is a cgroup of version 2 that every sandbox is below; empty where there is none. Beside v1 sandboxes have none of their own.
func (c *cgroups) unified() string {
	if c.v2 {
		return c.dir("", "")
	}
	var st unix.Statfs_t
	if dir := filepath.Join(c.root, "unified"); unix.Statfs(dir, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
		return dir
	}
	return ""
}

func (c *cgroups) look() (all, controlled []string) {
	if c.known != nil {
		return c.known()
	}
	return c.find()
}

func (c *cgroups) find() (all, controlled []string) {
	if c.v2 {
		return []string{c.root}, []string{c.root}
	}
	entries, err := os.ReadDir(c.root)
	if err != nil {
		return nil, nil
	}
	for _, e := range entries {
		// "cpu" and the like may be links to "cpu,cpuacct".
		if !e.IsDir() {
			continue
		}
		tree := filepath.Join(c.root, e.Name())
		all = append(all, tree)
		var st unix.Statfs_t
		if unix.Statfs(tree, &st) == nil && st.Type == unix.CGROUP_SUPER_MAGIC {
			controlled = append(controlled, tree)
		}
	}
	return all, controlled
}

// setup makes the parent and limits it to what may be placed plus the margin.
func (c *cgroups) setup(alloc functions.Resources) error {
	if c.v2 {
		if err := c.enableControllers(); err != nil {
			return err
		}
	}
	for _, ctl := range []string{"memory", "cpu"} {
		if err := os.MkdirAll(c.dir(ctl, ""), 0o755); err != nil {
			return err
		}
	}
	if alloc.Memory > 0 {
		limit := alloc.Memory + parentMargin + alloc.Instances*parentMarginEach
		file, current := "memory.limit_in_bytes", "memory.usage_in_bytes"
		if c.v2 {
			file, current = "memory.max", "memory.current"
		}
		// What still runs from an earlier time may take more than a limit that was lowered. Then the old one stays: the kernel would refuse
		// (v1), or kill until it fits (v2).
		dir := c.dir("memory", "")
		if used, err := number(dir, current); err == nil && used < limit {
			if err := write(dir, file, strconv.FormatInt(limit, 10)); err != nil && !errors.Is(err, syscall.EBUSY) {
				return err
			}
		}
	}
	if alloc.CPU > 0 {
		quota := (alloc.CPU + parentMarginCPU) * cpuPeriod / 1000
		if c.v2 {
			return write(c.dir("cpu", ""), "cpu.max", fmt.Sprintf("%d %d", quota, cpuPeriod))
		}
		// On v1 a parent's quota may not be below a child's: EINVAL for what still runs from an earlier time.
		err := write(c.dir("cpu", ""), "cpu.cfs_quota_us", strconv.FormatInt(quota, 10))
		if err != nil && !errors.Is(err, syscall.EINVAL) {
			return err
		}
	}
	return nil
}

// enableControllers hands the controllers down from the root to the parent's children.
func (c *cgroups) enableControllers() error {
	dir := c.root
	for _, part := range append([]string{""}, strings.Split(strings.Trim(c.parent, "/"), "/")...) {
		dir = filepath.Join(dir, part)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		have, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
		if err != nil {
			return err
		}
		var on []string
		for _, ctl := range []string{"cpu", "memory", "pids"} {
			if !slices.Contains(strings.Fields(string(have)), ctl) {
				return fmt.Errorf("the controller %s is not available in %s", ctl, dir)
			}
			on = append(on, "+"+ctl)
		}
		if err := write(dir, "cgroup.subtree_control", strings.Join(on, " ")); err != nil {
			return err
		}
	}
	return nil
}

// can is what the kernel can. It must not be called before there is the parent.
func (c *cgroups) can() abilities {
	if c.kernel != nil {
		return c.kernel()
	}
	return c.ask()
}

func (c *cgroups) ask() abilities {
	file := "memory.memsw.limit_in_bytes"
	if c.v2 {
		file = "memory.swap.max"
	}
	_, swap := os.Stat(filepath.Join(c.dir("memory", ""), file))
	_, namespaces := os.Stat("/proc/self/ns/cgroup")
	return abilities{swap == nil, namespaces == nil}
}

// usage reads a sandbox's account; fs.ErrNotExist when it has no cgroup.
func (c *cgroups) usage(id string) (functions.Usage, error) {
	var u functions.Usage
	pids, err := number(c.dir("pids", id), "pids.current")
	if err != nil {
		return u, err
	}
	u.PIDs = pids
	mem := c.dir("memory", id)
	if c.v2 {
		cpu, err := keyed(c.dir("cpu", id), "cpu.stat")
		if err != nil {
			return u, err
		}
		u.CPU = functions.Duration(time.Duration(cpu["usage_usec"]) * time.Microsecond)
		current, err := number(mem, "memory.current")
		if err != nil {
			return u, err
		}
		stat, err := keyed(mem, "memory.stat")
		if err != nil {
			return u, err
		}
		// "file" counts tmpfs, which is no cache: the ephemeral storage is the sandbox's own.
		u.Memory = max(0, current-stat["file"]+stat["shmem"])
		return u, nil
	}
	cpu, err := number(c.dir("cpuacct", id), "cpuacct.usage")
	if err != nil {
		return u, err
	}
	u.CPU = functions.Duration(cpu)
	current, err := number(mem, "memory.usage_in_bytes")
	if err != nil {
		return u, err
	}
	stat, err := keyed(mem, "memory.stat")
	if err != nil {
		return u, err
	}
	u.Memory = max(0, current-stat["total_cache"]+stat["total_shmem"])
	return u, nil
}

// oomKills is how many processes of the sandbox the kernel killed for want of memory.
func (c *cgroups) oomKills(id string) int64 {
	file := "memory.oom_control"
	if c.v2 {
		file = "memory.events"
	}
	stat, err := keyed(c.dir("memory", id), file)
	if err != nil {
		return 0
	}
	return stat["oom_kill"]
}

// kill ends every process of the sandbox, whoever started it.
func (c *cgroups) kill(id string) {
	_ = c.thaw(id)
	if c.v2 {
		if write(c.dir("", id), "cgroup.kill", "1") == nil {
			return
		}
	}
	for _, tree := range c.trees() {
		killTree(c.in(tree, id))
	}
}

// killTree is best effort: what is not there any more needs no killing.
func killTree(dir string) {
	procs, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return
	}
	for _, line := range strings.Fields(string(procs)) {
		if pid, err := strconv.Atoi(line); err == nil && pid > 1 {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
	// A directory's links tell how many directories are in it.
	var st unix.Stat_t
	if unix.Stat(dir, &st) == nil && st.Nlink == 2 {
		return
	}
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() {
			killTree(filepath.Join(dir, e.Name()))
		}
	}
}

func (c *cgroups) in(tree, id string) string { return filepath.Join(tree, c.parent, id) }

// remove takes the sandbox's cgroups away.
func (c *cgroups) remove(id string) error {
	for _, tree := range c.trees() {
		if err := removeBusy(c.in(tree, id), func() { c.kill(id) }); err != nil {
			return err
		}
	}
	return nil
}

// removeBusy takes a directory of cgroups away once what is in it has ended.
func removeBusy(dir string, kill func()) error {
	begun := time.Now()
	for wait := time.Millisecond; ; wait = min(2*wait, 20*time.Millisecond) {
		err := removeTree(dir)
		if !errors.Is(err, syscall.EBUSY) || time.Since(begun) > removeTime {
			return err
		}
		kill()
		time.Sleep(wait)
	}
}

func removeTree(dir string) error {
	// Few have any below them.
	if err := unix.Rmdir(dir); err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, syscall.ENOENT) {
		return &fs.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	return nil
}

// children lists the ids of the sandboxes that have a cgroup.
func (c *cgroups) children() []string {
	var out []string
	for _, tree := range c.trees() {
		entries, err := os.ReadDir(c.in(tree, ""))
		if err != nil {
			continue
		}
		for _, e := range entries {
			if e.IsDir() && !slices.Contains(out, e.Name()) {
				out = append(out, e.Name())
			}
		}
	}
	return out
}

// removeParent takes the parent away, and what is above it, as far as they are empty.
func (c *cgroups) removeParent() {
	for _, tree := range c.trees() {
		for p := c.parent; p != "/"; p = filepath.Dir(p) {
			if unix.Rmdir(filepath.Join(tree, p)) != nil {
				break
			}
		}
	}
}

// write writes into a file of a cgroup, which the kernel makes. It is without what os.WriteFile does for files that could be waited for: a start
// writes many values, and an EAGAIN would be taken for a wish to wait until the file can be written, for ever.
func write(dir, file, value string) error {
	path := filepath.Join(dir, file)
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_TRUNC|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	for {
		_, err := unix.Write(fd, []byte(value))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return &fs.PathError{Op: "write", Path: path, Err: err}
		default:
			return nil
		}
	}
}

func number(dir, file string) (int64, error) {
	b, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
}

// keyed reads a file of lines "key number".
func keyed(dir, file string) (map[string]int64, error) {
	f, err := os.Open(filepath.Join(dir, file))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out := map[string]int64{}
	for s := bufio.NewScanner(f); s.Scan(); {
		k, v, ok := strings.Cut(s.Text(), " ")
		if n, err := strconv.ParseInt(v, 10, 64); ok && err == nil {
			out[k] = n
		}
	}
	return out, nil
}
