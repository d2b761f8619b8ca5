//go:build linux

package containerd

import (
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/runtime/sandbox"
)

// What holds a function is in the specification of its sandbox, whichever way that is made.
func TestSpecHolds(t *testing.T) {
	t.Parallel()
	d := &Driver{cgroup: &cgroups{root: t.TempDir(), parent: "/p"}}
	s := sandbox.Spec{ID: "ins_1", Limits: functions.Limits{CPU: 250, Memory: 64 * functions.MiB, Ephemeral: 8 * functions.MiB, PIDs: 40}}
	for name, mapped := range map[string]bool{"user": false, "root of a user namespace": true} {
		art := &artifact{image: sandbox.Image{Entrypoint: []string{"/fn"}}, user: identityOf{uid: 65532, gid: 65532, mapped: mapped}}
		spec, err := d.ociSpec(art, s, d.scratch("ins_1"))
		if err != nil {
			t.Fatal(err)
		}
		p, l := spec.Process, spec.Linux
		if !p.NoNewPrivileges {
			t.Errorf("%s: a program may gain privileges", name)
		}
		allowed := slices.Concat(p.Capabilities.Bounding, p.Capabilities.Effective, p.Capabilities.Permitted, p.Capabilities.Inheritable, p.Capabilities.Ambient)
		if !mapped && len(allowed) > 0 {
			t.Errorf("%s: capabilities %v", name, allowed)
		}
		for _, c := range []string{"CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_SYS_MODULE", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_MKNOD", "CAP_DAC_READ_SEARCH", "CAP_SYS_CHROOT"} {
			if slices.Contains(allowed, c) {
				t.Errorf("%s: %s", name, c)
			}
		}
		for _, kind := range []specs.LinuxNamespaceType{specs.PIDNamespace, specs.NetworkNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.MountNamespace} {
			if !slices.ContainsFunc(l.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == kind && n.Path == "" }) {
				t.Errorf("%s: no %s namespace of its own", name, kind)
			}
		}
		for _, path := range []string{"/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"} {
			if !slices.Contains(l.MaskedPaths, path) {
				t.Errorf("%s: %s can be read", name, path)
			}
		}
		for _, path := range []string{"/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus"} {
			if !slices.Contains(l.ReadonlyPaths, path) {
				t.Errorf("%s: %s can be written", name, path)
			}
		}
		if _, err := d.plan(d.newBox("ins_1", "", 0), s, &artifact{}, spec, names{}); err != nil {
			t.Fatal(err)
		}
		if l.Seccomp == nil || l.Seccomp.DefaultAction != specs.ActErrno || len(l.Seccomp.Syscalls) == 0 {
			t.Errorf("%s: no list of system calls: %+v", name, l.Seccomp)
		}
		r := l.Resources
		if len(r.Devices) != 1 || r.Devices[0].Allow || r.Devices[0].Access != "rwm" || r.Devices[0].Type != "" {
			t.Errorf("%s: devices %+v", name, r.Devices)
		}
		if *r.Memory.Limit != s.Limits.Memory+s.Limits.Ephemeral || *r.Pids.Limit != 40 || *r.CPU.Quota != 25_000 || *r.CPU.Period != cpuPeriod {
			t.Errorf("%s: limits %+v", name, r)
		}
		for _, m := range spec.Mounts {
			writable := m.Destination == "/tmp" || m.Destination == "/dev/shm" || m.Type == "tmpfs" || m.Type == "devpts" || m.Type == "mqueue" || m.Type == "proc"
			if !slices.Contains(m.Options, "nosuid") || !writable && !slices.Contains(m.Options, "ro") {
				t.Errorf("%s: the mount %+v", name, m)
			}
		}
	}
}
