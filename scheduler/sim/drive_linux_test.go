package sim_test

import (
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/scheduler/sim"
)

// TestTheWholeSchedulerAgrees plays traces twice: with the keep-alive alone, and with the whole scheduler. Where starts take no time, a fixed window leaves
// nothing in which they may differ: every cold start, and the waste to a millisecond of each idle time.
func TestTheWholeSchedulerAgrees(t *testing.T) {
	t.Parallel()
	for seed := range uint64(2) {
		trace := sim.Generate(10+seed, 15, day/2)
		s := sim.NewSite(trace)
		for _, keep := range []time.Duration{time.Minute, 10 * time.Minute} {
			fast := sim.Play(s, sim.Fixed(keep), sim.NewFleet())
			whole := sim.Drive{KeepAlive: keep}.Run(trace)
			if whole.Invocations != fast.Invocations || whole.Cold != fast.Cold || whole.AppQ50 != fast.AppQ50 || whole.AppQ75 != fast.AppQ75 {
				t.Errorf("seed %d, fixed %s: the whole scheduler has %d of %d cold, q50 %.4f, q75 %.4f; the keep-alive alone %d of %d, %.4f, %.4f", seed, keep,
					whole.Cold, whole.Invocations, whole.AppQ50, whole.AppQ75, fast.Cold, fast.Invocations, fast.AppQ50, fast.AppQ75)
			}
			if fewer, more := whole.Beside(fast); fewer != 0 || more != 0 {
				t.Errorf("seed %d, fixed %s: %.3f of the applications have fewer cold starts, %.3f more", seed, keep, fewer, more)
			}
			if off := whole.Waste/fast.Waste - 1; math.Abs(off) > 1e-6 {
				t.Errorf("seed %d, fixed %s: %.6f GiB h wasted, the keep-alive alone %.6f", seed, keep, whole.Waste, fast.Waste)
			}
		}
	}
}

// With starts that take time, and the scheduler's own policy, which learns from messages, the two are near each other.
func TestTheWholeSchedulerIsNearWithItsOwnPolicy(t *testing.T) {
	t.Parallel()
	trace := sim.Generate(21, 25, day)
	s := sim.NewSite(trace)
	const budget = functions.GiB
	fast := sim.Play(s, sim.Auto(s, budget), sim.NewFleet())
	whole := sim.Drive{KeepAlive: time.Second, KeepAliveMax: sim.Ceiling, IdleMemory: budget, Start: sim.StartTime}.Run(trace)
	t.Logf("the whole scheduler: %d cold, %.3f GiB h, %d ahead, p99 slowdown %.3f, %d nodes", whole.Cold, whole.Waste, whole.Ahead, whole.Slowdown, whole.MostNodes)
	t.Logf("the keep-alive alone: %d cold, %.3f GiB h, %d ahead, p99 slowdown %.3f, %d nodes", fast.Cold, fast.Waste, fast.Ahead, fast.Slowdown, fast.MostNodes)
	if d := math.Abs(float64(whole.Cold)/float64(fast.Cold) - 1); d > 0.1 {
		t.Errorf("the cold starts differ by %.3f", d)
	}
	if d := math.Abs(whole.Waste/fast.Waste - 1); d > 0.1 {
		t.Errorf("the wastes differ by %.3f", d)
	}
}

func TestTheWholeSchedulerRepeats(t *testing.T) {
	t.Parallel()
	play := func() *sim.Result {
		return sim.Drive{KeepAlive: time.Second, KeepAliveMax: time.Hour, Start: sim.StartTime}.Run(sim.Generate(5, 10, day/4))
	}
	a, b := play(), play()
	if diff := cmp.Diff(a, b, cmpopts.IgnoreUnexported(sim.Result{})); diff != "" {
		t.Errorf("(-first +second):\n%s", diff)
	}
	if len(a.Series) != 6 || a.MostNodes == 0 {
		t.Errorf("%+v", a)
	}
}
