//go:build linux

package containerd

import (
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tatami-faas/tatami/functions"
)

// A start has whole processors, as many as its limit rounded up, unless the node has not so much to give; the limit is kept for afterwards.
func TestBoost(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		limit, granted, want int64
		same                 bool
	}{
		{limit: 10, want: 1000},
		{limit: 250, want: 1000, granted: 2000},
		{limit: 1500, want: 2000, granted: 2000},
		{limit: 1000, want: 1000, same: true},
		{limit: 1500, want: 1500, granted: 1900, same: true},
		{limit: 0, same: true},
	} {
		d := &Driver{cfg: Config{Allocatable: functions.Resources{CPU: c.granted}}}
		r := &specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: new(uint64(7))}}
		if c.limit > 0 {
			r.CPU.Quota, r.CPU.Period = new(c.limit*100), new(uint64(cpuPeriod))
		}
		start, after := d.boosted(r)
		if (after == nil) != c.same {
			t.Errorf("%+v: afterwards %+v", c, after)
			continue
		}
		if c.limit > 0 && (*start.CPU.Quota != c.want*100 || *start.CPU.Shares != 7) {
			t.Errorf("%+v: %d, shares %d", c, *start.CPU.Quota, *start.CPU.Shares)
		}
		if after != nil && (*after.Quota != c.limit*100 || *r.CPU.Quota != c.limit*100 || after.Shares != nil) {
			t.Errorf("%+v: afterwards %d", c, *after.Quota)
		}
	}
}

// The limit holds once the start is over, and is forgotten with the sandbox.
func TestBoostEnds(t *testing.T) {
	t.Parallel()
	files := map[string]string{"cpu/p/ins/cpu.cfs_period_us": "", "cpu/p/ins/cpu.cfs_quota_us": "100000"}
	d := &Driver{cgroup: &cgroups{root: tree(t, files), parent: "/p"}}
	limit := &specs.LinuxCPU{Quota: new(int64(1000)), Period: new(uint64(cpuPeriod))}
	b := d.newBox("ins", "", 0)
	b.hasBoost(limit)
	b.dropBoostLocked()
	b.endBoost()
	if got := read(t, d.cgroup.root, "cpu/p/ins/cpu.cfs_quota_us"); got != "100000" {
		t.Errorf("a sandbox that is gone is limited to %s", got)
	}
	b.hasBoost(limit)
	b.served()
	b.endBoost()
	if got := read(t, d.cgroup.root, "cpu/p/ins/cpu.cfs_quota_us"); got != "1000" {
		t.Errorf("%s is the limit after the start", got)
	}
}
