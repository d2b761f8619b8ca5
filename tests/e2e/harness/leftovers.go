//go:build e2e

package harness

import (
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Leftovers lists what of the server is on the machine: processes, mounts, cgroups.
func (s *Server) Leftovers() []string {
	var out []string
	dir := filepath.Dir(s.RunDir)
	procs, _ := os.ReadDir("/proc")
	for _, p := range procs {
		if _, err := strconv.Atoi(p.Name()); err != nil || p.Name() == strconv.Itoa(os.Getpid()) {
			continue
		}
		cmd, _ := os.ReadFile("/proc/" + p.Name() + "/cmdline")
		groups, _ := os.ReadFile("/proc/" + p.Name() + "/cgroup")
		if strings.Contains(string(cmd), dir+"/") || strings.Contains(string(groups), "/"+s.CgroupName()+"/") {
			out = append(out, "process "+p.Name()+": "+strings.ReplaceAll(string(cmd), "\x00", " "))
		}
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		// The data directory itself may be a mount of the test's.
		if len(f) > 4 && strings.HasPrefix(f[4], dir+"/") && f[4] != s.DataDir {
			out = append(out, "mount "+f[4])
		}
	}
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && filepath.Base(path) == s.CgroupName() {
			out = append(out, "cgroup "+path)
			return filepath.SkipDir
		}
		return nil
	})
	return out
}

// CgroupName is the name of the cgroup under which the server's sandboxes lie.
func (s *Server) CgroupName() string { return "tatami-" + s.name }

// CheckNothingLeft fails the test if anything of the server is left on the machine.
func (s *Server) CheckNothingLeft() {
	s.t.Helper()
	left := s.Leftovers()
	// A process that was killed is there until the machine's init has reaped it, which some take a second or two for.
	for begun := time.Now(); len(left) > 0 && time.Since(begun) < 5*time.Second; left = s.Leftovers() {
		time.Sleep(50 * time.Millisecond)
	}
	for _, l := range left {
		s.t.Errorf("left behind: %s", l)
	}
}
