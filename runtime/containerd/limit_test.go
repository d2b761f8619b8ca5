//go:build linux

package containerd

import (
	"testing"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/runtime/sandbox"
)

func TestLimit(t *testing.T) {
	t.Parallel()
	spec := sandbox.Spec{Limits: functions.Limits{CPU: 250, Memory: 64 * functions.MiB, Ephemeral: 8 * functions.MiB, PIDs: 30}}
	for name, c := range map[string]struct {
		v2          bool
		files, want map[string]string
	}{
		"v1": {
			files: map[string]string{"memory/p/memory.memsw.limit_in_bytes": "", "memory/p/ins/x": "", "cpu/p/ins/x": "", "pids/p/ins/x": ""},
			want: map[string]string{
				"memory/p/ins/memory.limit_in_bytes": "75497472", "memory/p/ins/memory.memsw.limit_in_bytes": "75497472",
				"cpu/p/ins/cpu.shares": "256", "cpu/p/ins/cpu.cfs_period_us": "", "cpu/p/ins/cpu.cfs_quota_us": "25000", "pids/p/ins/pids.max": "30",
			},
		},
		"v2": {
			v2:    true,
			files: map[string]string{"p/memory.swap.max": "", "p/ins/x": ""},
			want: map[string]string{
				"p/ins/memory.max": "75497472", "p/ins/memory.swap.max": "0", "p/ins/cpu.weight": "10", "p/ins/cpu.max": "25000 100000", "p/ins/pids.max": "30",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for file := range c.want {
				c.files[file] = ""
			}
			d := &Driver{cgroup: &cgroups{root: tree(t, c.files), parent: "/p", v2: c.v2}}
			if err := d.cgroup.limit("ins", d.resources(spec)); err != nil {
				t.Fatal(err)
			}
			for file, want := range c.want {
				if got := read(t, d.cgroup.root, file); got != want {
					t.Errorf("%s: %s, not %s", file, got, want)
				}
			}
			if err := d.cgroup.limit("gone", d.resources(spec)); err == nil {
				t.Error("a sandbox without a cgroup was limited")
			}
		})
	}
	for shares, want := range map[uint64]uint64{0: 1, 2: 1, 1024: 39, 262144: 10000, 1 << 40: 10000} {
		if got := cpuWeight(shares); got != want {
			t.Errorf("%d shares are weight %d, not %d", shares, got, want)
		}
	}
}
