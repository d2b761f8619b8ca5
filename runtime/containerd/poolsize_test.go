//go:build linux

package containerd

import (
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
)

func TestPoolBounds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		size   int
		memory int64
		want   poolBounds
	}{
		{0, 64 * functions.GiB, poolBounds{0, 0}},
		{7, functions.GiB, poolBounds{7, 7}},
		{PoolAuto, 23 * functions.GiB, poolBounds{104, 471}},
		{PoolAuto, 4 * functions.GiB, poolBounds{20, 81}},
		{PoolAuto, 0, poolBounds{20, 81}},
		{PoolAuto, 128 * functions.MiB, poolBounds{1, 2}},
		{PoolAuto, 1024 * functions.GiB, poolBounds{104, 1000}},
	} {
		if got := boundsOf(c.size, c.memory); got != c.want {
			t.Errorf("%d, %d: %+v, not %+v", c.size, c.memory, got, c.want)
		}
	}
	for of, want := range map[poolBounds]poolBounds{{0, 0}: {0, 0}, {1, 1}: {1, 1}, {10, 10}: {2, 2}, {104, 471}: {13, 118}, {1, 2}: {1, 1}} {
		if got := of.mapped(); got != want {
			t.Errorf("%+v: %+v, not %+v", of, got, want)
		}
	}
	b := poolBounds{10, 100}
	for burst, want := range map[int]int{0: 10, 8: 10, 40: 50, 1000: 100} {
		if got := b.size(burst); got != want {
			t.Errorf("burst %d: %d, not %d", burst, got, want)
		}
	}
}

func TestDemand(t *testing.T) {
	t.Parallel()
	now := time.Unix(1e9, 0)
	var d demand
	start := func(n int) {
		for range n {
			d.started(now)
		}
	}
	if d.burst(now) != 0 {
		t.Error("a burst out of nothing")
	}
	start(5)
	now = now.Add(burstTime)
	start(7)
	// A burst that two slots share counts as one.
	if got := d.burst(now); got != 12 {
		t.Errorf("%d", got)
	}
	now = now.Add(2 * burstTime)
	start(3)
	if got := d.burst(now); got != 12 {
		t.Errorf("later: %d", got)
	}
	now = now.Add(busyMemory - 2*burstTime)
	if got := d.burst(now); got != 3 {
		t.Errorf("the burst is not forgotten in time: %d", got)
	}
	now = now.Add(10 * busyMemory)
	if got := d.burst(now); got != 0 {
		t.Errorf("much later: %d", got)
	}
	start(2)
	if got := d.burst(now); got != 2 {
		t.Errorf("after that: %d", got)
	}
}
