package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/runtime/containerd"
	"github.com/tatami-faas/tatami/runtime/egress"
)

// machineChecks looks at what running functions needs of this machine.
func machineChecks(ctx context.Context, m machine) []v1.Check {
	out := []v1.Check{checkKernel(), checkRoot(), checkCgroup(), checkFilesystem("overlayfs", "overlay"), checkRunc(ctx), checkGVisor(ctx)}
	out = append(out, checkSpace(m.dataDir), checkDurable(m.dataDir), checkRunDir(m.runDir), checkEgress(), checkUserNamespaces())
	if !m.serverUp {
		for _, p := range m.ports {
			out = append(out, checkPort(ctx, p))
		}
	}
	return append(out, thisMachine(m.dataDir).checks()...)
}

// The kernel needs setns, overlayfs with several lower layers, and clone3 with the flags that the runtime uses.
const kernelMajor, kernelMinor = 5, 4

func checkKernel() v1.Check {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return v1.Check{Name: "kernel", State: v1.CheckFail, Detail: err.Error()}
	}
	release := unix.ByteSliceToString(u.Release[:])
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err == nil && (major < kernelMajor || major == kernelMajor && minor < kernelMinor) {
		return v1.Check{
			Name: "kernel", State: v1.CheckFail, Detail: fmt.Sprintf("Linux %s is older than %d.%d", release, kernelMajor, kernelMinor),
			Fix: "install a newer kernel: sudo apt-get install linux-image-amd64",
		}
	}
	return okCheck("kernel", "Linux %s", release)
}

func checkRoot() v1.Check {
	if os.Geteuid() == 0 {
		return okCheck("privileges", "root")
	}
	return v1.Check{Name: "privileges", State: v1.CheckWarn, Detail: "not root: some checks see less, and `tatami up` needs root", Fix: "sudo tatami doctor"}
}

// cgroupRoot is where control groups are mounted.
const cgroupRoot = "/sys/fs/cgroup"

func checkCgroup() v1.Check {
	var st unix.Statfs_t
	if err := unix.Statfs(cgroupRoot, &st); err != nil {
		return v1.Check{Name: "cgroups", State: v1.CheckFail, Detail: err.Error(), Fix: "mount control groups: sudo mount -t cgroup2 none " + cgroupRoot}
	}
	if st.Type == unix.CGROUP2_SUPER_MAGIC {
		b, err := os.ReadFile(filepath.Join(cgroupRoot, "cgroup.controllers"))
		if err != nil {
			return v1.Check{Name: "cgroups", State: v1.CheckFail, Detail: err.Error()}
		}
		return controllers("v2", strings.Fields(string(b)))
	}
	mounted, err := mountsOf("cgroup")
	if err != nil {
		return v1.Check{Name: "cgroups", State: v1.CheckFail, Detail: err.Error()}
	}
	return controllers("v1", mounted)
}

// controllers checks that those that hold the limits are there.
func controllers(version string, have []string) v1.Check {
	var missing []string
	for _, want := range []string{"cpu", "memory", "pids"} {
		found := false
		for _, h := range have {
			found = found || h == want
		}
		if !found {
			missing = append(missing, want)
		}
	}
	if len(missing) > 0 {
		return v1.Check{
			Name: "cgroups", State: v1.CheckFail, Detail: fmt.Sprintf("%s without the controllers %s: limits could not be held", version, strings.Join(missing, ", ")),
			Fix: "enable them on the kernel's command line: cgroup_enable=memory systemd.unified_cgroup_hierarchy=1",
		}
	}
	return okCheck("cgroups", "%s with cpu, memory and pids", version)
}

// mountsOf lists the options of every mount of a filesystem type.
func mountsOf(fstype string) ([]string, error) {
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []string
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if w := strings.Fields(sc.Text()); len(w) > 3 && w[2] == fstype {
			out = append(out, strings.Split(w[3], ",")...)
		}
	}
	return out, nil
}

func checkFilesystem(name, fstype string) v1.Check {
	b, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return v1.Check{Name: name, State: v1.CheckFail, Detail: err.Error()}
	}
	for line := range strings.SplitSeq(string(b), "\n") {
		if strings.TrimSpace(strings.TrimPrefix(line, "nodev")) == fstype {
			return okCheck(name, "known to the kernel")
		}
	}
	return v1.Check{Name: name, State: v1.CheckWarn, Detail: "not loaded; the first start of an instance loads it, where the kernel has it", Fix: "sudo modprobe " + fstype}
}

func checkRunc(ctx context.Context) v1.Check {
	path, err := containerd.FindProgram("runc")
	if err != nil {
		return v1.Check{Name: "runc", State: v1.CheckFail, Detail: "not found, neither on the PATH nor where programs usually are", Fix: "sudo apt-get install runc"}
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	b, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return v1.Check{Name: "runc", State: v1.CheckFail, Detail: fmt.Sprintf("%s --version: %v", path, err), Fix: "sudo apt-get install --reinstall runc"}
	}
	first, _, _ := strings.Cut(string(b), "\n")
	return okCheck("runc", "%s, %s", path, strings.TrimPrefix(first, "runc version "))
}

// checkGVisor: functions with sandbox gvisor need it, and no others.
func checkGVisor(ctx context.Context) v1.Check {
	path, err := containerd.FindProgram("runsc")
	if err != nil {
		return okCheck("gvisor", "runsc is not installed: functions with `sandbox: gvisor` cannot run here, others are not concerned")
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	b, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return v1.Check{
			Name: "gvisor", State: v1.CheckWarn, Detail: fmt.Sprintf("functions with `sandbox: gvisor` cannot run here: %s --version: %v", path, err),
			Fix: "sudo apt-get install --reinstall runsc",
		}
	}
	first, _, _ := strings.Cut(string(b), "\n")
	return okCheck("gvisor", "%s, %s", path, strings.TrimPrefix(first, "runsc version "))
}

// existing returns the nearest directory above a path that there is.
func existing(path string) string {
	for {
		if _, err := os.Stat(path); err == nil || path == filepath.Dir(path) {
			return path
		}
		path = filepath.Dir(path)
	}
}

// minFree is what a data directory should have free.
const minFree = functions.GiB

func checkSpace(dir string) v1.Check {
	var st unix.Statfs_t
	at := existing(dir)
	if err := unix.Statfs(at, &st); err != nil {
		return v1.Check{Name: "disk space", State: v1.CheckFail, Detail: fmt.Sprintf("%s: %v", at, err), Fix: "name a directory that can be read with --data-dir"}
	}
	free := int64(st.Bavail) * st.Bsize
	if free < minFree {
		return v1.Check{Name: "disk space", State: v1.CheckWarn, Detail: fmt.Sprintf("%s has %s free", at, size(free)), Fix: "free space, or choose another place with --data-dir"}
	}
	return okCheck("disk space", "%s has %s free", at, size(free))
}

// ext4Magic is EXT4_SUPER_MAGIC, which ext2 and ext3 share.
const ext4Magic = 0xef53

// checkDurable asks whether the filesystem orders a rename after the data that it names: only there does power loss lose nothing accepted.
func checkDurable(dir string) v1.Check {
	var st unix.Statfs_t
	at := existing(dir)
	if err := unix.Statfs(at, &st); err != nil {
		return v1.Check{Name: "durability", State: v1.CheckFail, Detail: fmt.Sprintf("%s: %v", at, err)}
	}
	if int64(st.Type) == ext4Magic { //nolint:unconvert // the type differs between architectures
		return okCheck("durability", "%s is on ext4: what was accepted outlives power loss", at)
	}
	return v1.Check{
		Name: "durability", State: v1.CheckWarn, Detail: fmt.Sprintf("%s is not on ext4: power loss may lose accepted work", at),
		Fix: "put the data directory on ext4 with --data-dir; `tatami up --require-durable` refuses others",
	}
}

// maxRunDir is how long the run directory's path may be: names of sockets in it are limited by the system.
const maxRunDir = 60

func checkRunDir(dir string) v1.Check {
	if len(dir) > maxRunDir {
		return v1.Check{Name: "run directory", State: v1.CheckFail, Detail: dir + " is too long for the sockets in it", Fix: "choose a shorter one with --run-dir"}
	}
	probe := existing(dir)
	if err := unix.Access(probe, unix.W_OK); err != nil && os.Geteuid() == 0 {
		return v1.Check{Name: "run directory", State: v1.CheckFail, Detail: fmt.Sprintf("%s: %v", probe, err), Fix: "choose another one with --run-dir"}
	}
	return okCheck("run directory", "%s", dir)
}

// checkUserNamespaces looks for what images that ask for root need.
func checkUserNamespaces() v1.Check {
	const name = "user namespaces"
	bad := func(detail, fix string) v1.Check {
		return v1.Check{Name: name, State: v1.CheckWarn, Detail: "images that ask for root run as user 65532: " + detail, Fix: fix}
	}
	b, err := os.ReadFile("/proc/sys/user/max_user_namespaces")
	if err != nil {
		return bad("the kernel has none", "install a kernel with CONFIG_USER_NS")
	}
	if n := strings.TrimSpace(string(b)); n == "0" {
		return bad("there may be none", "sudo sysctl user.max_user_namespaces=10000")
	}
	var u unix.Utsname
	var major, minor int
	if err := unix.Uname(&u); err == nil {
		_, err = fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor)
		if err == nil && (major < 5 || major == 5 && minor < 19) {
			return bad("overlayfs takes layers with mapped owners from Linux 5.19 on", "install a newer kernel")
		}
	}
	return okCheck(name, "images that ask for root run as root of one")
}

// checkEgress tries what functions with egress need of the kernel, in a network namespace of its own.
func checkEgress() v1.Check {
	if os.Geteuid() != 0 {
		return v1.Check{Name: "egress", State: v1.CheckWarn, Detail: "not root: whether functions can have a way to the internet is not known", Fix: "sudo tatami doctor"}
	}
	if err := egress.Probe(egress.Config{}); err != nil {
		return v1.Check{
			Name: "egress", State: v1.CheckWarn, Detail: "functions with `egress: internet` cannot run here: " + err.Error(),
			Fix: cmp.Or(hintOf(err), "install a kernel with nftables, its masquerade and reject, and veth; functions without egress are not concerned"),
		}
	}
	return okCheck("egress", "virtual Ethernet, nftables with masquerade, and a nameserver are there")
}

func checkPort(ctx context.Context, addr string) v1.Check {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	switch {
	case err == nil:
		_ = l.Close()
		return okCheck("port", "%s is free", addr)
	case errors.Is(err, syscall.EADDRINUSE):
		return v1.Check{Name: "port", State: v1.CheckFail, Detail: addr + " is taken by another program", Fix: "end it (sudo ss -ltnp), or give `tatami up` another address"}
	case errors.Is(err, fs.ErrPermission):
		return v1.Check{Name: "port", State: v1.CheckWarn, Detail: addr + ": " + err.Error(), Fix: "sudo tatami doctor"}
	}
	return v1.Check{Name: "port", State: v1.CheckFail, Detail: err.Error(), Fix: "give `tatami up` an address of this machine"}
}
