//go:build linux

package containerd

import (
	"errors"
	"io/fs"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// A start takes more of the processors than serving does: a function with a twentieth of one would be held up again and again before it
// listens. So until then it may have its limit rounded up to whole processors, which is also what language runtimes count their threads by.
// Its share beside others stays the limit's.

const (
	// boostTime is the longest that a start may have more than the limit.
	boostTime = time.Second
	// boostRest is how long after its first connection a function keeps it: the first request follows at once.
	boostRest = 20 * time.Millisecond
)

// boosted returns the resources of a start, and the quota that is to hold after it; nil where it is the same.
func (d *Driver) boosted(r *specs.LinuxResources) (*specs.LinuxResources, *specs.LinuxCPU) {
	if r.CPU == nil || r.CPU.Quota == nil || r.CPU.Period == nil {
		return r, nil
	}
	whole := int64(*r.CPU.Period)
	quota := (*r.CPU.Quota + whole - 1) / whole * whole
	// The parent's quota bounds each child's on v1.
	granted := d.cfg.Allocatable.CPU
	if quota == *r.CPU.Quota || granted > 0 && quota > granted*whole/1000 {
		return r, nil
	}
	start, cpu := *r, *r.CPU
	cpu.Quota = &quota
	start.CPU = &cpu
	return &start, &specs.LinuxCPU{Quota: r.CPU.Quota, Period: r.CPU.Period}
}

// hasBoost notes that the start has more than the limit for now.
func (b *box) hasBoost(limit *specs.LinuxCPU) {
	if limit == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.limit = limit
	b.boost = time.AfterFunc(boostTime, b.endBoost)
}

// dropBoostLocked forgets it: the sandbox goes, or is another's. b.mu is held.
func (b *box) dropBoostLocked() {
	if b.boost != nil {
		b.boost.Stop()
	}
	b.limit, b.boost = nil, nil
}

// served notes that the function takes connections.
func (b *box) served() {
	if b.serves.Swap(true) {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.boost != nil && b.boost.Stop() {
		b.boost = time.AfterFunc(boostRest, b.endBoost)
	}
	if b.settle != nil {
		time.AfterFunc(boostRest, b.settle)
		b.settle = nil
	}
}

// endBoost has the limit hold.
func (b *box) endBoost() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.limit == nil {
		return
	}
	err := b.d.cgroup.limit(b.sid, &specs.LinuxResources{CPU: b.limit})
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENODEV) {
		b.d.log.Error("a sandbox goes on with more of the processors than its limit", "inst", b.info.ID, "err", err)
	}
	b.limit = nil
}
