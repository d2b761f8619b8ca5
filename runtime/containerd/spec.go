//go:build linux

package containerd

import (
	"cmp"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/runtime/sandbox"
)

const (
	defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	openFiles   = 65536
	// oomScore makes functions the first to go when the node itself runs out of memory.
	oomScore = 500
	// specVersion is one that every runtime in use reads; nothing newer is needed.
	specVersion = "1.1.0"
)

// ociSpec writes what the OCI runtime makes of the sandbox, but for the list of system calls: see plan. A sandbox of our own making has a filter that
// was made of that once.
func (d *Driver) ociSpec(art *artifact, s sandbox.Spec, sc scratch) (*specs.Spec, error) {
	args := s.Command
	if len(args) == 0 {
		args = slices.Concat(art.image.Entrypoint, art.image.Cmd)
	}
	if len(args) == 0 {
		return nil, fault.New(fault.CodeInvalidArtifact, "the image has no entrypoint and the function no command").
			WithHint("set 'command' in tatami.yaml")
	}
	cwd := cmp.Or(art.image.WorkingDir, "/")
	if !filepath.IsAbs(cwd) {
		cwd = "/" + cwd
	}
	env := mergeEnv([]string{defaultPath}, art.image.Env, s.Env)
	if !slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, "HOME=") }) {
		// The OCI runtime would look for it itself.
		env = append(env, "HOME="+cmp.Or(art.user.home, "/"))
	}
	id := string(s.ID)
	spec := &specs.Spec{
		Version:  specVersion,
		Hostname: cmp.Or(s.Hostname, id),
		Root:     &specs.Root{Path: "rootfs", Readonly: s.ReadOnlyRoot},
		Process: &specs.Process{
			Args: args, Env: env, Cwd: cwd,
			User:            specs.User{UID: art.user.uid, GID: art.user.gid, AdditionalGids: art.user.groups},
			NoNewPrivileges: true,
			Capabilities:    &specs.LinuxCapabilities{},
			OOMScoreAdj:     new(oomScore),
			Rlimits: []specs.POSIXRlimit{
				rlimit("RLIMIT_NOFILE", unix.RLIMIT_NOFILE, openFiles),
				{Type: "RLIMIT_CORE"},
				// It counts all processes of a user on the node, so one sandbox would take from another; the cgroup bounds each.
				rlimit("RLIMIT_NPROC", unix.RLIMIT_NPROC, unix.RLIM_INFINITY),
			},
		},
		Mounts: mounts(sc),
		Linux: &specs.Linux{
			CgroupsPath: d.cgroup.path(id),
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.NetworkNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace}, {Type: specs.MountNamespace},
			},
			Resources: d.resources(s),
			MaskedPaths: []string{
				"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
				"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
			},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
			// Inside, every user may serve on every port.
			Sysctl: map[string]string{"net.ipv4.ip_unprivileged_port_start": "0"},
		},
	}
	if art.user.mapped {
		caps := rootCapabilities()
		spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
	}
	if d.cgroup.can().namespaces {
		spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	return spec, nil
}

// rlimit is the value wanted, or what this process itself may have: raising that takes a capability which not every node grants.
func rlimit(name string, resource int, want uint64) specs.POSIXRlimit {
	var own unix.Rlimit
	if unix.Getrlimit(resource, &own) == nil {
		want = min(want, own.Max)
	}
	return specs.POSIXRlimit{Type: name, Soft: want, Hard: want}
}

func mounts(sc scratch) []specs.Mount {
	bind := func(source, target string, options ...string) specs.Mount {
		return specs.Mount{Destination: target, Type: "bind", Source: source, Options: append([]string{"rbind", "nosuid", "nodev"}, options...)}
	}
	special := func(kind, target string, options ...string) specs.Mount {
		return specs.Mount{Destination: target, Type: kind, Source: kind, Options: options}
	}
	return []specs.Mount{
		special("proc", "/proc", "nosuid", "noexec", "nodev"),
		special("tmpfs", "/dev", "nosuid", "strictatime", "mode=755", "size=64k"),
		special("devpts", "/dev/pts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
		special("mqueue", "/dev/mqueue", "nosuid", "noexec", "nodev"),
		special("sysfs", "/sys", "nosuid", "noexec", "nodev", "ro"),
		// Language runtimes size their heaps and threads by it.
		special("cgroup", "/sys/fs/cgroup", "nosuid", "noexec", "nodev", "relatime", "ro"),
		bind(sc.shm(), "/dev/shm", "noexec"),
		bind(sc.tmp(), "/tmp"),
		bind(sc.file("hosts"), "/etc/hosts", "ro"),
		bind(sc.file("hostname"), "/etc/hostname", "ro"),
		bind(sc.file("resolv.conf"), "/etc/resolv.conf", "ro"),
	}
}

// resources are the sandbox's own limits. Its ephemeral storage is memory too, charged to it.
func (d *Driver) resources(s sandbox.Spec) *specs.LinuxResources {
	r := &specs.LinuxResources{
		Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}},
		Memory:  &specs.LinuxMemory{},
		CPU:     &specs.LinuxCPU{},
	}
	if l := s.Limits; l.Memory > 0 {
		r.Memory.Limit = new(l.Memory + l.Ephemeral)
		if d.cgroup.can().swap {
			r.Memory.Swap = r.Memory.Limit
		}
	}
	if cpu := s.Limits.CPU; cpu > 0 {
		r.CPU.Shares = new(uint64(max(2, cpu*1024/1000)))
		r.CPU.Period = new(uint64(cpuPeriod))
		r.CPU.Quota = new(max(1000, cpu*cpuPeriod/1000))
	}
	if n := s.Limits.PIDs; n > 0 {
		r.Pids = &specs.LinuxPids{Limit: &n}
	}
	return r
}

// mergeEnv joins lists of KEY=value: of one key the last value counts, at the place of the first.
func mergeEnv(lists ...[]string) []string {
	var out []string
	at := map[string]int{}
	for _, e := range slices.Concat(lists...) {
		key, _, _ := strings.Cut(e, "=")
		if i, ok := at[key]; ok {
			out[i] = e
			continue
		}
		at[key] = len(out)
		out = append(out, e)
	}
	return out
}
