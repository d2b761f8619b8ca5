//go:build linux

package containerd

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// kernelPeriod is the period of a cgroup that was given none. To set it costs more than all other limits.
const kernelPeriod = 100_000

// limit writes the resources into a cgroup that exists and has the kernel's period, as the OCI runtime would have at its making.
func (c *cgroups) limit(id string, r *specs.LinuxResources) error {
	if c.v2 {
		return c.limitV2(id, r)
	}
	var err error
	set := func(controller, file string, value int64) {
		err = errors.Join(err, write(c.dir(controller, id), file, strconv.FormatInt(value, 10)))
	}
	if m := r.Memory; m != nil && m.Limit != nil {
		// Never above the limit of both together: that one is not set yet.
		set("memory", "memory.limit_in_bytes", *m.Limit)
		if m.Swap != nil {
			set("memory", "memory.memsw.limit_in_bytes", *m.Swap)
		}
	}
	if r.CPU != nil && r.CPU.Shares != nil {
		set("cpu", "cpu.shares", int64(*r.CPU.Shares))
	}
	if r.CPU != nil && r.CPU.Quota != nil {
		if *r.CPU.Period != kernelPeriod {
			set("cpu", "cpu.cfs_period_us", int64(*r.CPU.Period))
		}
		set("cpu", "cpu.cfs_quota_us", *r.CPU.Quota)
	}
	if r.Pids != nil && r.Pids.Limit != nil {
		set("pids", "pids.max", *r.Pids.Limit)
	}
	return err
}

func (c *cgroups) limitV2(id string, r *specs.LinuxResources) error {
	var err error
	set := func(file, value string) { err = errors.Join(err, write(c.dir("", id), file, value)) }
	if m := r.Memory; m != nil && m.Limit != nil {
		if m.Swap != nil {
			set("memory.swap.max", strconv.FormatInt(*m.Swap-*m.Limit, 10))
		}
		set("memory.max", strconv.FormatInt(*m.Limit, 10))
	}
	if r.CPU != nil && r.CPU.Shares != nil {
		set("cpu.weight", strconv.FormatUint(cpuWeight(*r.CPU.Shares), 10))
	}
	if r.CPU != nil && r.CPU.Quota != nil {
		set("cpu.max", fmt.Sprintf("%d %d", *r.CPU.Quota, *r.CPU.Period))
	}
	if r.Pids != nil && r.Pids.Limit != nil {
		set("pids.max", strconv.FormatInt(*r.Pids.Limit, 10))
	}
	return err
}

// cpuWeight maps v1's shares, 2 to 262144, to v2's weight, 1 to 10000, along a line, as the OCI runtime does.
func cpuWeight(shares uint64) uint64 {
	return 1 + (min(max(shares, 2), 262144)-2)*9999/262142
}
