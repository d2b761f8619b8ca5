package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/internal/awake"
	"github.com/tatami-faas/tatami/runtime/containerd"
)

// speed looks for what slows cold starts. Everything is read below root, and asked of the kernel through has, so that a test can put another
// machine in their place. It changes nothing.
type speed struct {
	root string
	// release is the kernel's.
	release string
	// has reports whether the kernel knows a system call.
	has func(call string) bool
	// fstype is the type of the data directory's filesystem, device its device.
	fstype string
	device uint64
}

// thisMachine is what speed looks at in production.
func thisMachine(dataDir string) speed {
	s := speed{root: "/", has: hasCall, fstype: "unknown"}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		s.release = unix.ByteSliceToString(u.Release[:])
	}
	at := existing(dataDir)
	var fs unix.Statfs_t
	if unix.Statfs(at, &fs) == nil {
		s.fstype = filesystemName(int64(fs.Type)) //nolint:unconvert // the type differs between architectures
	}
	var st unix.Stat_t
	if unix.Stat(at, &st) == nil {
		s.device = uint64(st.Dev) //nolint:unconvert // the type differs between architectures
	}
	return s
}

// checks are those about the speed of cold starts.
func (s speed) checks() []v1.Check {
	out := []v1.Check{s.cgroups(), s.dynmods(), s.freezer(), s.calls(), s.idmapped(), s.entropy(), s.governor(), s.sleep(), s.data(), s.memory()}
	for i := range out {
		out[i].Name = "cold starts: " + out[i].Name
	}
	return out
}

// mount is one line of the table of mounts.
type mount struct {
	at, fstype string
	options    []string
}

func (s speed) mounts() []mount {
	var out []mount
	for line := range strings.SplitSeq(s.read("proc/self/mounts"), "\n") {
		if w := strings.Fields(line); len(w) > 3 {
			out = append(out, mount{at: w[1], fstype: w[2], options: strings.Split(w[3], ",")})
		}
	}
	return out
}

// hierarchies returns the mount of cgroup v2, if there is one, and the controllers of v1.
func (s speed) hierarchies() (v2 *mount, v1 []string) {
	for _, m := range s.mounts() {
		switch m.fstype {
		case "cgroup2":
			v2 = &m
		case "cgroup":
			v1 = append(v1, m.options...)
		}
	}
	return v2, v1
}

const unified = "boot with systemd.unified_cgroup_hierarchy=1 on the kernel's command line for v2 alone"

func (s speed) cgroups() v1.Check {
	v2, old := s.hierarchies()
	switch {
	case v2 == nil && len(old) == 0:
		return warning("cgroups", "no control groups are mounted", "mount them: sudo mount -t cgroup2 none "+cgroupRoot)
	case len(old) == 0:
		return okCheck("cgroups", "v2 alone: one hierarchy to join, and a process can begin in its group")
	}
	mode := "v1 alone"
	if v2 != nil {
		mode = "hybrid: the controllers are v1's, v2 is mounted at " + v2.at
	}
	return warning("cgroups", mode+"; a start that finds no waiting sandbox joins several hierarchies, each after a wait",
		"keep sandboxes made ahead with --sandbox-pool, which are in their groups already; or "+unified)
}

// dynmods is the kernel's way to join a group without waiting; since 6.0.
func (s speed) dynmods() v1.Check {
	const name, costs = "favordynmods", "it makes fork and exit a little slower on the whole machine, and stays until the machine is started again"
	v2, _ := s.hierarchies()
	switch {
	case v2 != nil && slices.Contains(v2.options, name):
		return okCheck(name, "set: joining a control group does not wait")
	case !s.atLeast(6, 0):
		return warning(name, s.release+" has no such option: moving a process into a control group waits 6 to 14 ms on an idle machine, once a start without a waiting sandbox",
			"keep sandboxes made ahead with --sandbox-pool, or install Linux 6.0 or newer")
	case v2 == nil:
		return warning(name, "not set, and there is no v2 hierarchy to set it on: moving a process into a control group waits 6 to 14 ms on an idle machine",
			"keep sandboxes made ahead with --sandbox-pool, or "+unified)
	}
	return warning(name, "not set: moving a process into a control group waits 6 to 14 ms on an idle machine, once a start without a waiting sandbox",
		"keep sandboxes made ahead with --sandbox-pool, which need it not; or sudo mount -o remount,favordynmods "+v2.at+" ("+costs+")")
}

// freezer is what idle instances are frozen by.
func (s speed) freezer() v1.Check {
	v2, old := s.hierarchies()
	switch {
	case slices.Contains(old, "freezer"):
		return okCheck("freezer", "v1: idle instances can be frozen; their memory is not asked back, which takes v2")
	case len(old) == 0 && v2 != nil && s.atLeast(5, 19):
		return okCheck("freezer", "v2: idle instances can be frozen, and give memory back when it is short")
	case len(old) == 0 && v2 != nil && s.atLeast(5, 2):
		return okCheck("freezer", "v2: idle instances can be frozen; their memory is not asked back, which takes Linux 5.19")
	}
	return warning("freezer", "none: idle instances go on running", "mount the v1 controller freezer, or "+unified)
}

// calls are those that a waiting sandbox is entered with.
func (s speed) calls() v1.Check {
	var missing []string
	for _, call := range []string{"fsopen", "move_mount", "openat2", "pidfd_open"} {
		if !s.has(call) {
			missing = append(missing, call)
		}
	}
	if len(missing) > 0 {
		return warning("kernel", fmt.Sprintf("Linux %s lacks %s (or forbids it here): functions cannot start in sandboxes made ahead", s.release, strings.Join(missing, ", ")),
			"install Linux 5.6 or newer, or run tatami outside the container that it is in")
	}
	return okCheck("kernel", "Linux %s has fsopen, move_mount, openat2 and pidfd_open", s.release)
}

// idmappable are the filesystems whose mounts can map ids, with the kernel that first had it.
var idmappable = map[string][2]int{"ext4": {5, 12}, "xfs": {5, 12}, "btrfs": {5, 15}, "f2fs": {5, 18}, "tmpfs": {6, 3}, "zfs": {6, 0}}

// idmapped asks whether an image's layers can be shown to a user namespace without a copy of them.
func (s speed) idmapped() v1.Check {
	known := slices.ContainsFunc(strings.Split(s.read("proc/filesystems"), "\n"), func(l string) bool {
		return strings.TrimSpace(strings.TrimPrefix(l, "nodev")) == "overlay"
	})
	if !known {
		return warning("overlay", "not known to the kernel: images could not be shared by their instances", "sudo modprobe overlay")
	}
	first, can := idmappable[s.fstype]
	switch {
	case !s.atLeast(5, 19):
		return warning("overlay", "present, without id-mapped lower layers", "install Linux 5.19 or newer for images that must run as root in a user namespace")
	case !can || !s.atLeast(first[0], first[1]):
		return warning("overlay", fmt.Sprintf("present, but %s, where the images lie, cannot be id-mapped here", s.fstype), "put --data-dir on ext4 or xfs")
	}
	return okCheck("overlay", "present, with id-mapped lower layers on %s", s.fstype)
}

// enoughEntropy is what a kernel whose generator is ready reports, in bits.
const enoughEntropy = 256

func (s speed) entropy() v1.Check {
	n, err := strconv.Atoi(strings.TrimSpace(s.read("proc/sys/kernel/random/entropy_avail")))
	switch {
	case err != nil:
		return okCheck("entropy", "not told by this machine")
	case n < enoughEntropy/2:
		return warning("entropy", fmt.Sprintf("%d bits: a function that asks for random numbers may wait at its start", n), "sudo apt-get install rng-tools5, or give the virtual machine a virtio-rng device")
	}
	return okCheck("entropy", "%d bits", n)
}

func (s speed) governor() v1.Check {
	found, _ := filepath.Glob(filepath.Join(s.root, "sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor"))
	slow := map[string]int{}
	for _, f := range found {
		b, err := os.ReadFile(f)
		if g := strings.TrimSpace(string(b)); err == nil && slices.Contains([]string{"powersave", "conservative", "ondemand"}, g) {
			slow[g]++
		}
	}
	switch {
	case len(found) == 0:
		return okCheck("processor", "its governor is not told, as in most virtual machines")
	case len(slow) > 0:
		var words []string
		for g, n := range slow {
			words = append(words, fmt.Sprintf("%s on %s", g, many(n, "processor")))
		}
		slices.Sort(words)
		return warning("processor", strings.Join(words, ", ")+": it runs slowly at the moment when an idle machine gets a request", "sudo cpupower frequency-set -g performance")
	}
	return okCheck("processor", "its governor holds nothing back")
}

// sleep looks at whether idle processors can be kept awake while a function starts and while calls go through, and whether the kernel sees to it.
func (s speed) sleep() v1.Check {
	const name, slow = "idle processors", "each step of a call and of a start waits for one to wake up"
	m := awake.Look(os.DirFS(s.root))
	switch {
	case m.Governor == "":
		return okCheck(name, "the kernel does not tell how deeply they sleep")
	case !m.Heeds() && m.Virtual:
		return warning(name, "they sleep, and the kernel has no driver for them that would keep them awake: "+slow,
			"where the hypervisor is KVM, sudo modprobe cpuidle_haltpoll force=1")
	case !m.Heeds():
		return okCheck(name, "the kernel has no driver for them that would keep them awake")
	}
	if _, err := os.Stat(filepath.Join(s.root, awake.LatencyFile)); err != nil {
		return warning(name, "they sleep, and "+awake.LatencyFile+", which keeps them awake, is missing: "+slow,
			"make it visible to this process, as in a container with --device "+awake.LatencyFile)
	}
	// Auto is a word that it knows.
	policy, why, _ := awake.Choose(awake.Auto, m)
	while := map[awake.Policy]string{awake.Calls: "while functions start and calls go through", awake.Starts: "while functions start"}[policy]
	said := fmt.Sprintf("they are kept awake %s (--stay-awake=auto is %s here): %s", while, policy, why)
	const on = "echo 200000 | sudo tee /sys/module/haltpoll/parameters/guest_halt_poll_ns, and for good haltpoll.guest_halt_poll_ns=200000 on the kernel's command line"
	switch {
	case !m.PollingOff():
		return okCheck(name, "%s", said)
	case policy == awake.Calls:
		return okCheck(name, "%s; the kernel's own halt polling, which costs less, is off, and goes on with: %s", said, on)
	}
	return warning(name, said+"; and the kernel's own halt polling is off", on)
}

// data looks at where images lie.
func (s speed) data() v1.Check {
	major, minor := unix.Major(s.device), unix.Minor(s.device)
	block := fmt.Sprintf("sys/dev/block/%d:%d", major, minor)
	rotates := strings.TrimSpace(s.read(block+"/queue/rotational")) == "1" || strings.TrimSpace(s.read(block+"/../queue/rotational")) == "1"
	switch {
	case slices.Contains([]string{"nfs", "smb", "fuse", "9p", "overlay"}, s.fstype):
		return warning("data directory", s.fstype+": layers of images are read through it at each first use, and it may not do below an overlay", "name a directory on a local ext4 or xfs with --data-dir")
	case rotates:
		return warning("data directory", s.fstype+" on a disk that says it rotates (virtual ones may say so wrongly): an image that is not in memory is read slowly", "put --data-dir on a solid-state disk")
	}
	return okCheck("data directory", "%s", s.fstype)
}

// leastPool is how many waiting sandboxes are worth having.
const leastPool = 16

func (s speed) memory() v1.Check {
	var available int64
	for line := range strings.SplitSeq(s.read("proc/meminfo"), "\n") {
		if w := strings.Fields(line); len(w) > 1 && w[0] == "MemAvailable:" {
			kib, err := strconv.ParseInt(w[1], 10, 64)
			if err == nil {
				available = kib * functions.KiB
			}
		}
	}
	const each int64 = containerd.SpareCost
	room := available / each
	if room < leastPool {
		return warning("memory", fmt.Sprintf("%s available, room for %d waiting sandboxes", size(available), room), "free memory, or keep --sandbox-pool below that")
	}
	return okCheck("memory", "%s available; a waiting sandbox takes %s, a container made ahead for one function %s", size(available), size(each), size(containerd.PrecreatedCost))
}

// read returns a file below the root; "" where it cannot.
func (s speed) read(name string) string {
	b, err := os.ReadFile(filepath.Join(s.root, name))
	if err != nil {
		return ""
	}
	return string(b)
}

func (s speed) atLeast(major, minor int) bool {
	var a, b int
	if _, err := fmt.Sscanf(s.release, "%d.%d", &a, &b); err != nil {
		return false
	}
	return a > major || a == major && b >= minor
}

func warning(name, detail, fix string) v1.Check {
	return v1.Check{Name: name, State: v1.CheckWarn, Detail: detail, Fix: fix}
}

// hasCall makes a system call that fails by its arguments: how it fails tells whether the kernel has it.
func hasCall(call string) bool {
	var err error
	switch call {
	case "fsopen":
		_, err = unix.Fsopen("", unix.FSOPEN_CLOEXEC)
	case "move_mount":
		err = unix.MoveMount(-1, "", -1, "", 0)
	case "openat2":
		_, err = unix.Openat2(-1, "", &unix.OpenHow{Flags: unix.O_PATH})
	case "pidfd_open":
		_, err = unix.PidfdOpen(-1, 0)
	}
	return !errors.Is(err, unix.ENOSYS) && (os.Geteuid() != 0 || !errors.Is(err, unix.EPERM))
}

// filesystemName names what statfs gives as a number.
func filesystemName(magic int64) string {
	switch magic {
	case ext4Magic:
		return "ext4"
	case unix.XFS_SUPER_MAGIC:
		return "xfs"
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs"
	case unix.F2FS_SUPER_MAGIC:
		return "f2fs"
	case unix.TMPFS_MAGIC:
		return "tmpfs"
	case unix.OVERLAYFS_SUPER_MAGIC:
		return "overlay"
	case unix.NFS_SUPER_MAGIC:
		return "nfs"
	case unix.SMB_SUPER_MAGIC:
		return "smb"
	case unix.FUSE_SUPER_MAGIC:
		return "fuse"
	case unix.V9FS_MAGIC:
		return "9p"
	case 0x2fc12fc1:
		return "zfs"
	}
	return fmt.Sprintf("a filesystem of type %#x", magic)
}
