//go:build linux

package containerd

import (
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"

	defaultprofile "github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tatami-faas/tatami/runtime/attach/wire"
	"github.com/tatami-faas/tatami/runtime/seccomp"
)

// waitingCaps are what becoming another user takes. The init gives them up with that, and the right to ever have them.
const waitingCaps = 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID | 1<<unix.CAP_SETPCAP

// setup writes what an init does to its sandbox before it waits: what the OCI runtime does for a specification, in its order. With ids, the
// first of a user namespace's, it is in two parts, and the init has the namespace after the first: until then it is the node's root.
func (d *Driver) setup(id string, spec *specs.Spec, root string, ids uint32) (outer, inner []byte, err error) {
	s, err := d.confinement(ids != 0)
	if err != nil {
		return nil, nil, err
	}
	begin := []wire.Step{
		// The node's mounts go on to be the node's alone.
		{Op: wire.OpMount, Path: "/", Number: unix.MS_SLAVE | unix.MS_REC},
		{Op: wire.OpMount, Source: root, Path: root, Kind: "bind", Number: unix.MS_BIND | unix.MS_REC},
		{Op: wire.OpUnshare, Number: unix.CLONE_NEWCGROUP},
	}
	if ids == 0 {
		s.Steps = append(begin, d.surroundings(spec, root, 0)...)
		s.Steps = append(s.Steps, sessionSteps(id)...)
		inner, err = s.Encode()
		return nil, inner, err
	}
	first := &wire.Setup{Steps: append(begin, d.surroundings(spec, root, ids)...)}
	first.Steps = append(first.Steps, wire.Step{Op: wire.OpUsers})
	s.Steps = append([]wire.Step{{Op: wire.OpRoot}}, sessionSteps(id)...)
	if outer, err = first.Encode(); err != nil {
		return nil, nil, err
	}
	inner, err = s.Encode()
	return outer, inner, err
}

// sessionSteps have a process begin a session of its own, with a keyring of its own.
func sessionSteps(id string) []wire.Step {
	return []wire.Step{{Op: wire.OpSession}, {Op: wire.OpKeyring, Source: "_ses." + id}}
}

// surroundings make the mounts and whatever else a sandbox has around its process. What its root would own in a user namespace is the user
// ids's of the node.
func (d *Driver) surroundings(spec *specs.Spec, root string, ids uint32) []wire.Step {
	s := &wire.Setup{}
	for _, m := range spec.Mounts {
		s.Steps = append(s.Steps, d.mountSteps(m, root, ids)...)
		if m.Destination == "/dev" {
			s.Steps = append(s.Steps, deviceSteps(root, ids)...)
		}
	}
	s.Steps = append(s.Steps, wire.Step{Op: wire.OpPivot, Path: root}, wire.Step{Op: wire.OpLoopback})
	for key, value := range spec.Linux.Sysctl {
		s.Steps = append(s.Steps, wire.Step{Op: wire.OpWrite, Path: "/proc/sys/" + strings.ReplaceAll(key, ".", "/"), Data: value})
	}
	for _, p := range spec.Linux.ReadonlyPaths {
		s.Steps = append(s.Steps, wire.Step{Op: wire.OpReadOnly, Path: p})
	}
	for _, p := range spec.Linux.MaskedPaths {
		s.Steps = append(s.Steps, wire.Step{Op: wire.OpMask, Path: p, Data: owned("", ids)})
	}
	return s.Steps
}

// owned adds to a tmpfs's options whose it is.
func owned(data string, ids uint32) string {
	if ids == 0 {
		return data
	}
	return strings.TrimPrefix(fmt.Sprintf("%s,uid=%d,gid=%d", data, ids, ids), ",")
}

// confinement is what every process of a sandbox, with a user namespace where it is mapped, takes upon itself before it takes anything from a
// function.
func (d *Driver) confinement(mapped bool) (*wire.Setup, error) {
	filter, err := d.filter()
	if err != nil {
		return nil, err
	}
	keep := uint64(waitingCaps)
	if mapped {
		// Among them are those.
		keep = rootKeeps()
	}
	return &wire.Setup{Keep: keep, Filter: filter, FilterFlags: unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW}, nil
}

// defaultFilter is that of a process without capabilities.
func defaultFilter() ([]byte, error) {
	spec := &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}}}
	return seccomp.Compile(defaultprofile.DefaultProfile(spec), goruntime.GOARCH)
}

// mountSteps make one of the specification's mounts below root, which has a place for it.
func (d *Driver) mountSteps(m specs.Mount, root string, ids uint32) []wire.Step {
	flags, data := mountOptions(m.Options)
	at := filepath.Join(root, m.Destination)
	steps := []wire.Step{}
	switch m.Type {
	case "cgroup":
		return d.cgroupSteps(at, flags, ids)
	case "tmpfs":
		data = owned(data, ids)
	case "devpts":
		// As the node numbers the group.
		data = strings.Replace(data, "gid=5", fmt.Sprintf("gid=%d", ids+terminals), 1)
	case "bind":
		return append(steps,
			wire.Step{Op: wire.OpMount, Source: m.Source, Path: at, Kind: "bind", Number: flags},
			wire.Step{Op: wire.OpMount, Source: m.Source, Path: at, Kind: "bind", Number: flags | unix.MS_REMOUNT},
		)
	}
	if filepath.Dir(m.Destination) != "/" {
		steps = append(steps, wire.Step{Op: wire.OpMkdir, Path: at, Number: 0o755})
	}
	steps = append(steps, wire.Step{Op: wire.OpMount, Source: m.Source, Path: at, Kind: m.Type, Number: flags, Data: data})
	if ids == 0 {
		return steps
	}
	switch m.Type {
	case "devpts":
		steps = append(steps, give(at, ids), give(filepath.Join(at, "ptmx"), ids))
	case "mqueue":
		// Its group is the node's root's in a user namespace, too.
		steps = append(steps, wire.Step{Op: wire.OpChown, Path: at, Number: uint64(ids)})
	}
	return steps
}

// terminals is the group of terminals.
const terminals = 5

// give makes a path the user ids's.
func give(path string, ids uint32) wire.Step {
	return wire.Step{Op: wire.OpChown, Path: path, Number: uint64(ids), Device: uint64(ids)}
}

// mountOptions tells a mount's flags from what its file system is told.
func mountOptions(options []string) (flags uint64, data string) {
	known := map[string]uint64{
		"ro": unix.MS_RDONLY, "nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC, "relatime": unix.MS_RELATIME,
		"strictatime": unix.MS_STRICTATIME, "bind": unix.MS_BIND, "rbind": unix.MS_BIND | unix.MS_REC,
	}
	var rest []string
	for _, o := range options {
		if f, ok := known[o]; ok {
			flags |= f
		} else {
			rest = append(rest, o)
		}
	}
	return flags, strings.Join(rest, ",")
}

// cgroupSteps show the sandbox its own cgroup.
func (d *Driver) cgroupSteps(at string, flags uint64, ids uint32) []wire.Step {
	if d.cgroup.v2 {
		return []wire.Step{{Op: wire.OpMount, Source: "cgroup", Path: at, Kind: "cgroup2", Number: flags}}
	}
	const base = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	steps := []wire.Step{{Op: wire.OpMount, Source: "tmpfs", Path: at, Kind: "tmpfs", Number: base, Data: owned("mode=755", ids)}}
	for _, tree := range d.cgroup.controlled() {
		name := filepath.Base(tree)
		data, source := name, "cgroup"
		if name == "systemd" {
			data, source = "name=systemd", "systemd"
		}
		dir := filepath.Join(at, name)
		steps = append(steps, wire.Step{Op: wire.OpMkdir, Path: dir, Number: 0o755},
			wire.Step{Op: wire.OpMount, Source: source, Path: dir, Kind: "cgroup", Number: base | flags&unix.MS_RDONLY, Data: data})
		for one := range strings.SplitSeq(name, ",") {
			if one != name {
				steps = append(steps, wire.Step{Op: wire.OpSymlink, Source: name, Path: filepath.Join(at, one)})
			}
		}
	}
	// Like the OCI runtime's it is not read-only itself: it is root's, and nobody is.
	return steps
}

// deviceSteps fill /dev. In a user namespace the OCI runtime may make no devices, and shows the node's.
func deviceSteps(root string, ids uint32) []wire.Step {
	dev := filepath.Join(root, "dev")
	var steps []wire.Step
	for _, n := range []struct {
		name         string
		major, minor uint32
	}{{"null", 1, 3}, {"random", 1, 8}, {"full", 1, 7}, {"tty", 5, 0}, {"zero", 1, 5}, {"urandom", 1, 9}} {
		path := filepath.Join(dev, n.name)
		if ids != 0 {
			steps = append(steps, wire.Step{Op: wire.OpMknod, Path: path, Number: unix.S_IFREG | 0o666},
				wire.Step{Op: wire.OpMount, Source: "/dev/" + n.name, Path: path, Kind: "bind", Number: unix.MS_BIND})
			continue
		}
		steps = append(steps, wire.Step{Op: wire.OpMknod, Path: path, Number: unix.S_IFCHR | 0o666, Device: unix.Mkdev(n.major, n.minor)})
	}
	links := [][2]string{
		{"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"}, {"/proc/self/fd/2", "stderr"}, {"pts/ptmx", "ptmx"},
	}
	if _, err := os.Stat("/proc/kcore"); err == nil {
		links = append(links, [2]string{"/proc/kcore", "core"})
	}
	for _, l := range links {
		path := filepath.Join(dev, l[1])
		if steps = append(steps, wire.Step{Op: wire.OpSymlink, Source: l[0], Path: path}); ids != 0 {
			steps = append(steps, give(path, ids))
		}
	}
	for _, dir := range []string{"pts", "shm", "mqueue"} {
		steps = append(steps, wire.Step{Op: wire.OpMkdir, Path: filepath.Join(dev, dir), Number: 0o755})
	}
	return steps
}

// prepareProcess sets from outside what the OCI runtime sets of a process: its limits and its score.
func prepareProcess(pid int, p *specs.Process) error {
	for _, l := range p.Rlimits {
		number, ok := map[string]int{"RLIMIT_NOFILE": unix.RLIMIT_NOFILE, "RLIMIT_CORE": unix.RLIMIT_CORE, "RLIMIT_NPROC": unix.RLIMIT_NPROC}[l.Type]
		if !ok {
			return fmt.Errorf("the limit %s cannot be set", l.Type)
		}
		if err := unix.Prlimit(pid, number, &unix.Rlimit{Cur: l.Soft, Max: l.Hard}, nil); err != nil {
			return os.NewSyscallError("prlimit", err)
		}
	}
	if p.OOMScoreAdj == nil {
		return nil
	}
	return os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), fmt.Append(nil, *p.OOMScoreAdj), 0)
}

// firstIn reports whether the process is the first of its pid namespace, below the node's.
func firstIn(pid int) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(status)) {
		if v, ok := strings.CutPrefix(line, "NSpid:"); ok {
			f := strings.Fields(v)
			return len(f) > 1 && f[len(f)-1] == "1"
		}
	}
	return false
}

// initOf finds the first process of a sandbox of our own making; 0: it has none any more.
func (d *Driver) initOf(sid string) int {
	all := d.cgroup.processes(sid)
	if i := slices.IndexFunc(all, firstIn); i >= 0 {
		return all[i]
	}
	return 0
}
