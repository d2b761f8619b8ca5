//go:build linux

package escape

import (
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/tatami-faas/tatami/tests/process"
)

const nobody = 65532

// asNobody runs the program with its set-user-id bit on the node, and returns who it was.
func (s *suite) asNobody(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "setuid-") //nolint:usetesting // the test's own directory is closed to others
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "setuid")
	body, err := os.ReadFile(s.program)
	if err == nil {
		err = process.WriteProgram(path, body, 0o755)
	}
	if err == nil {
		err = os.Chmod(path, 0o755|fs.ModeSetuid|fs.ModeSetgid)
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "ids")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

// processes: none but the function's own can be seen or reached.
func (s *suite) processes(t *testing.T) {
	p := s.hold(t, s.spec())
	victim := exec.Command(s.program, "sleep")
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = victim.Process.Kill()
		_ = victim.Wait()
	}()
	neighbour := s.hold(t, s.spec())
	for _, pid := range []int{victim.Process.Pid, neighbour.Info().PID, os.Getpid()} {
		args := "pid=" + strconv.Itoa(pid)
		for _, name := range []string{"kill", "pidfd", "ptrace", "prlimit", "affinity"} {
			s.refused(t, p, name, args, "ESRCH")
			if pid == victim.Process.Pid {
				s.succeeds(t, name, args)
			}
		}
		s.refused(t, p, "vm-read", args, "ESRCH")
		if got := s.control(t, "vm-read", args); got.Errno != "EFAULT" {
			t.Errorf("outside of a sandbox the memory of %d is not reached: %+v", pid, got)
		}
	}
	if got := p.try(t, "processes", "").Detail; got != "hostile" {
		t.Errorf("the function sees the processes %q", got)
	}
	if got := s.control(t, "processes", "").Detail; len(strings.Fields(got)) < 3 {
		t.Errorf("outside of a sandbox only %q are seen", got)
	}
}

// ways are the names by which a file of the node might be reached.
func ways(path string) []string {
	out := []string{path, strings.Repeat("/..", 40) + path}
	for _, root := range []string{"/proc/1/root", "/proc/self/root", "/proc/1/cwd/../..", "/proc/thread-self/cwd/../../..", "/dev/fd/../../../..", "/tmp/../.."} {
		out = append(out, root+path)
	}
	return out
}

// files: nothing of the node can be read, by whatever name, and nothing that rules the sandbox can be written.
func (s *suite) files(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("of the node"), 0o644); err != nil {
		t.Fatal(err)
	}
	p := s.hold(t, s.spec())
	for _, path := range ways(secret) {
		s.refused(t, p, "read", "path="+url.QueryEscape(path), "ENOENT")
	}
	s.succeeds(t, "read", "path="+secret)
	if got := p.try(t, "link-out", "path="+secret); got.Errno != "ENOENT" {
		t.Errorf("a link out of the sandbox: %+v", got)
	}
	for path, refusal := range map[string]string{
		"/proc/sys/kernel/core_pattern": "EACCES", "/proc/sys/kernel/hostname": "EACCES", "/proc/sys/vm/drop_caches": "EACCES", "/proc/sysrq-trigger": "EACCES|ENOENT",
		"/etc/hosts": "EACCES", "/etc/resolv.conf": "EACCES", "/etc/hostname": "EACCES", "/hostile": "EACCES",
		"/proc/self/exe": "EACCES", "/proc/1/exe": "EACCES", "/sys/kernel/uevent_helper": "EACCES|ENOENT",
	} {
		s.refused(t, p, "write", "path="+path, refusal)
	}
	s.refused(t, p, "put", "path=/proc/self/oom_score_adj&text=-1000", "EACCES")
	s.refused(t, p, "put", "path=/proc/self/uid_map&text=0+0+1", "EPERM")
	for _, group := range s.cgroupFiles(t, p) {
		s.refused(t, p, "write", "path="+group, "EACCES|EROFS")
	}
	if got := p.try(t, "descriptors", ""); got.Errno != "" || slices.ContainsFunc(strings.Split(got.Detail, "\n"), leadsOut) {
		t.Errorf("the function has files open that lead out of its sandbox: %+v", got)
	}
	for _, path := range []string{"/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug", "/sys/firmware/x"} {
		if got := p.try(t, "read", "path="+path); got.Errno == "" && got.Detail != "" {
			t.Errorf("%s can be read: %.80q", path, got.Detail)
		}
	}
}

// cgroupFiles are the files by which a process would leave its cgroup, on either version.
func (s *suite) cgroupFiles(t *testing.T, p *prisoner) []string {
	t.Helper()
	var out []string
	for _, path := range []string{"/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/memory/cgroup.procs", "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/pids/pids.max"} {
		if p.try(t, "read", "path="+path).Errno == "" {
			out = append(out, path)
		}
	}
	if len(out) == 0 {
		t.Error("the function sees no cgroup at all")
	}
	return out
}

// leadsOut is true for what a descriptor must not lead to.
func leadsOut(to string) bool {
	for _, ours := range []string{"pipe:[", "socket:[", "anon_inode:[event", "/proc/", "anon_inode:[pidfd", "pidfd:[", "/sys/fs/cgroup/"} {
		if strings.HasPrefix(to, ours) {
			return false
		}
	}
	return to != "/dev/null" && to != ""
}

// neighbours: what one function has, no other finds.
func (s *suite) neighbours(t *testing.T) {
	const secret = "the-secret-of-one"
	only := sandboxLayer(t, "only-here", secret)
	spec := s.spec()
	spec.Artifact = s.Blobs.Put(t, s.imageWith(t, only))
	spec.Env = append(spec.Env, "SECRET="+secret)
	victim := s.hold(t, spec)
	if got := victim.try(t, "offer", "secret="+secret); got.Errno != "" {
		t.Fatalf("%+v", got)
	}
	p := s.hold(t, s.spec())
	for _, c := range []struct{ name, args, refusal string }{
		{"read", "path=/tmp/secret", "ENOENT"}, {"read", "path=/dev/shm/secret", "ENOENT"}, {"read", "path=/only-here", "ENOENT"},
		{"find-secret", "secret=" + secret, "ENOENT"}, {"find-shm", "", "ENOENT"}, {"find-queue", "", "ENOENT"},
		{"connect", "network=unix&addr=@tatami-escape", "ECONNREFUSED"}, {"connect", "network=tcp&addr=127.0.0.1:9999", "ECONNREFUSED"},
	} {
		s.refused(t, p, c.name, c.args, c.refusal)
		if got := victim.try(t, c.name, c.args); got.Errno != "" {
			t.Errorf("its owner cannot do it either: %s %s: %+v", c.name, c.args, got)
		}
	}
	// Where the node keeps them.
	found := map[string]bool{}
	for _, dir := range s.Dirs {
		_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() && (d.Name() == "secret" || d.Name() == "only-here") {
				found[d.Name()] = true
				for _, way := range ways(path) {
					s.refused(t, p, "read", "path="+url.QueryEscape(way), "ENOENT")
				}
			}
			return nil
		})
	}
	if len(s.Dirs) > 0 && len(found) < 2 {
		t.Errorf("the neighbour's files were not found on the node: %v", found)
	}
}
