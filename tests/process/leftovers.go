package process

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// leaveTime is how long what was ended may still be there: a process that was killed is until it was scheduled once more, and the machine's init has
// reaped it. What stays is seen all the same, only later.
const leaveTime = 30 * time.Second

// Leftovers lists what is on the machine of processes whose directories lie in dir and whose cgroups have a name: processes, mounts,
// cgroups. The data directory itself may be a mount of the caller's.
func Leftovers(dir, dataDir string, cgroup func(name string) bool) []string {
	var out []string
	procs, _ := os.ReadDir("/proc")
	for _, p := range procs {
		if _, err := strconv.Atoi(p.Name()); err != nil || p.Name() == strconv.Itoa(os.Getpid()) {
			continue
		}
		cmd, _ := os.ReadFile("/proc/" + p.Name() + "/cmdline")
		groups, _ := os.ReadFile("/proc/" + p.Name() + "/cgroup")
		names := strings.FieldsFunc(string(groups), func(r rune) bool { return r == '/' || r == '\n' })
		if strings.Contains(string(cmd), dir+"/") || slices.ContainsFunc(names, cgroup) {
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

// AwaitNothingLeft gives what list tells of some seconds to go away, and returns what does not.
func AwaitNothingLeft(list func() []string) []string {
	left := list()
	for begun := time.Now(); len(left) > 0 && time.Since(begun) < leaveTime; left = list() {
		time.Sleep(50 * time.Millisecond)
	}
	return left
}
