package heap_test

import (
	"testing"
	"testing/fstest"

	"github.com/tatami-faas/tatami/internal/heap"
)

const (
	mib = 1 << 20
	gib = 1 << 30
)

func TestMemoryIsTheLeastBound(t *testing.T) {
	t.Parallel()
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	meminfo := file("MemFree: 1 kB\nMemTotal:       8388608 kB\n")
	for name, tc := range map[string]struct {
		files fstest.MapFS
		want  int64
	}{
		"nothing to read": {fstest.MapFS{}, 0},
		"the machine's":   {fstest.MapFS{"proc/meminfo": meminfo}, 8 * gib},
		"v2, of a cgroup above": {fstest.MapFS{
			"proc/meminfo": meminfo, "proc/self/cgroup": file("0::/system.slice/tatami.service\n"),
			"sys/fs/cgroup/system.slice/memory.max":                file("2147483648\n"),
			"sys/fs/cgroup/system.slice/tatami.service/memory.max": file("max\n"),
		}, 2 * gib},
		"v2, in a container": {fstest.MapFS{
			"proc/meminfo": meminfo, "proc/self/cgroup": file("0::/\n"), "sys/fs/cgroup/memory.max": file("1073741824\n"),
		}, gib},
		"v1": {fstest.MapFS{
			"proc/meminfo": meminfo, "proc/self/cgroup": file("12:cpu,cpuacct:/a\n4:memory:/a/b\n0::/a\n"),
			"sys/fs/cgroup/memory/memory.limit_in_bytes":     file("9223372036854771712\n"),
			"sys/fs/cgroup/memory/a/b/memory.limit_in_bytes": file("536870912\n"),
		}, 512 * mib},
		"nonsense": {fstest.MapFS{
			"proc/meminfo": meminfo, "proc/self/cgroup": file("0::/../../x\nrubbish\n::\n"), "sys/fs/cgroup/memory.max": file("-1\n"),
		}, 8 * gib},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := heap.Memory(tc.files); got != tc.want {
				t.Errorf("%d bytes, want %d", got, tc.want)
			}
		})
	}
}

func TestTargetIsAShareOfTheMemory(t *testing.T) {
	t.Parallel()
	for memory, want := range map[int64]int64{
		-1: 0, 0: 0, 512 * mib: 256 * mib, 2 * gib: 384 * mib, 13 * gib: gib, 130 * gib: 10 * gib,
	} {
		if got := heap.Target(memory); got != want {
			t.Errorf("of %d MiB: %d MiB, want %d MiB", memory/mib, got/mib, want/mib)
		}
	}
}

func TestTheUserChoosesFirst(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		target           int64
		percent, atLimit string
		want             heap.Setting
	}{
		{target: gib, want: heap.Setting{Percent: 1000, Limit: gib}},
		{target: 0, want: heap.Setting{}},
		{target: gib, percent: "50", want: heap.Setting{}},
		{target: gib, percent: "off", atLimit: "1GiB", want: heap.Setting{}},
		{target: gib, atLimit: "2GiB", want: heap.Setting{Percent: 1000}},
	} {
		env := map[string]string{"GOGC": tc.percent, "GOMEMLIMIT": tc.atLimit}
		if got := heap.Choose(tc.target, func(k string) string { return env[k] }); got != tc.want {
			t.Errorf("target %d, GOGC=%q GOMEMLIMIT=%q: %+v, want %+v", tc.target, tc.percent, tc.atLimit, got, tc.want)
		}
	}
}

// FuzzMemory: whatever is in the files, the answer is no more than the machine has.
func FuzzMemory(f *testing.F) {
	f.Add("MemTotal: 8 kB", "0::/a/b", "4096")
	f.Add("MemTotal: 99999999999999999 kB", "4:memory:/", "max")
	f.Fuzz(func(t *testing.T, meminfo, cgroup, limit string) {
		fs := fstest.MapFS{
			"proc/meminfo": {Data: []byte(meminfo)}, "proc/self/cgroup": {Data: []byte(cgroup)}, "sys/fs/cgroup/memory.max": {Data: []byte(limit)},
		}
		all := heap.Memory(fstest.MapFS{"proc/meminfo": {Data: []byte(meminfo)}})
		if got := heap.Memory(fs); got < 0 || all > 0 && got > all {
			t.Errorf("%d bytes of %d", got, all)
		}
	})
}
