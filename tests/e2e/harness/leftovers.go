//go:build e2e

package harness

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// leftovers lists what is on the machine of processes whose directories lie in dir and whose cgroups have a name: processes, mounts,
// cgroups. The data directory itself may be a mount of the test's.
func leftovers(dir, dataDir string, cgroup func(name string) bool) []string {
	var out []string
	procs, _ := os.ReadDir("/proc")
	for _, p := range procs {
		if _, err := strconv.Atoi(p.Name()); err != nil || p.Name() == strconv.Itoa(os.Getpid()) {
			continue
		}
		cmd, _ := os.ReadFile("/proc/" + p.Name() + "/cmdline")
		groups, _ := os.ReadFile("/proc/" + p.Name() + "/cgroup")
		if strings.Contains(string(cmd), dir+"/") || slices.ContainsFunc(strings.FieldsFunc(string(groups), func(r rune) bool { return r == '/' || r == '\n' }), cgroup) {
			out = append(out, "process "+p.Name()+": "+strings.ReplaceAll(string(cmd), "\x00", " "))
		}
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		if len(f) > 4 && strings.HasPrefix(f[4], dir+"/") && f[4] != dataDir {
			out = append(out, "mount "+f[4])
		}
	}
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && cgroup(filepath.Base(path)) {
			out = append(out, "cgroup "+path)
			return filepath.SkipDir
		}
		return nil
	})
	return out
}

// Leftovers lists what of the server is on the machine: processes, mounts, cgroups.
func (s *Server) Leftovers() []string {
	return leftovers(filepath.Dir(s.RunDir), s.DataDir, func(name string) bool { return name == s.CgroupName() })
}

// CgroupName is the name of the cgroup under which the server's sandboxes lie.
func (s *Server) CgroupName() string { return "tatami-" + s.name }

// CheckNothingLeft fails the test if anything of the server is left on the machine.
func (s *Server) CheckNothingLeft() {
	s.t.Helper()
	checkNothingLeft(s.t, s.Leftovers)
}

func checkNothingLeft(t testing.TB, list func() []string) {
	t.Helper()
	left := list()
	// A process that was killed is there until the machine's init has reaped it, which some take a second or two for.
	for begun := time.Now(); len(left) > 0 && time.Since(begun) < 5*time.Second; left = list() {
		time.Sleep(50 * time.Millisecond)
	}
	for _, l := range left {
		t.Errorf("left behind: %s", l)
	}
}
