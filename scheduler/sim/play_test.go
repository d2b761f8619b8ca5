package sim_test

import (
	"bytes"
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/scheduler/sim"
)

const day = 24 * time.Hour

// every makes an application that is called regularly.
func every(period, run, length time.Duration) sim.App {
	a := sim.App{Name: "every", Memory: functions.GiB}
	for at := period; at < length; at += period {
		a.Calls = append(a.Calls, sim.Call{At: uint32(at.Milliseconds()), Run: uint32(run.Milliseconds())})
	}
	return a
}

func TestPlayCountsByHand(t *testing.T) {
	t.Parallel()
	// Calls at 1:00, 1:05 and 1:30, each a minute long; the last two overlap nothing.
	a := sim.App{Name: "a", Memory: functions.GiB}
	for _, m := range []uint32{60, 65, 90} {
		a.Calls = append(a.Calls, sim.Call{At: m * 60_000, Run: 60_000})
	}
	s := sim.NewSite(&sim.Trace{Length: 2 * time.Hour, Apps: []sim.App{a}})
	r := sim.Play(s, sim.Fixed(10*time.Minute), sim.NewFleet())
	// Idle: 4 minutes until the second call, 10 after it, 10 after the third.
	if r.Invocations != 3 || r.Cold != 2 || math.Abs(r.Waste-24.0/60) > 1e-9 || r.AppQ75 != 2.0/3 || r.MostNodes != 1 {
		t.Errorf("%+v", r)
	}
	if slow := 1 + 0.5/60; math.Abs(r.Slowdown-slow) > 1e-9 {
		t.Errorf("the p99 slowdown is %v, not %v", r.Slowdown, slow)
	}
	if len(r.Series) != 2 || r.Series[1].Invocations != 3 || r.Series[0].Nodes != 0 {
		t.Errorf("series %+v", r.Series)
	}
}

func TestTimersAreStartedAhead(t *testing.T) {
	t.Parallel()
	trace := &sim.Trace{Length: 7 * day, Apps: []sim.App{every(time.Hour, time.Second, 7*day)}}
	s := sim.NewSite(trace)
	fixed := sim.Play(s, sim.Fixed(10*time.Minute), nil)
	r := sim.Play(s, sim.Auto(s, functions.GiB/10), nil)
	if fixed.Cold != fixed.Invocations || r.Cold > 4 || r.Waste > fixed.Waste/2 || r.Ahead == 0 {
		t.Errorf("fixed: %d cold, %.2f GiB h; auto: %d cold, %.2f GiB h, %d ahead", fixed.Cold, fixed.Waste, r.Cold, r.Waste, r.Ahead)
	}
}

// TestAutoAtEqualWaste is the short form of the keep-alive bench.
func TestAutoAtEqualWaste(t *testing.T) {
	t.Parallel()
	s := sim.NewSite(sim.Generate(2, 120, 7*day))
	fixed := sim.Play(s, sim.Fixed(10*time.Minute), nil)
	auto, budget := sim.AtWaste(s, fixed.Waste, 0.02)
	if off := auto.Waste/fixed.Waste - 1; math.Abs(off) > 0.02 {
		t.Fatalf("with a budget of %d the wastes differ by %.3f", budget, off)
	}
	if fixed.AppQ75 != 1 || auto.Rate > 0.6*fixed.Rate || auto.AppQ75 > 0.6 {
		t.Errorf("fixed: %.4f cold, q75 %.2f; auto: %.4f cold, q75 %.2f", fixed.Rate, fixed.AppQ75, auto.Rate, auto.AppQ75)
	}
	hybrid := sim.Play(s, sim.Hybrid(s, 4*time.Hour), nil)
	auto, _ = sim.AtWaste(s, hybrid.Waste, 0.02)
	if auto.Rate >= hybrid.Rate || auto.AppQ75 > hybrid.AppQ75 {
		t.Errorf("hybrid: %.4f cold, q75 %.2f; auto at its waste: %.4f cold, q75 %.2f", hybrid.Rate, hybrid.AppQ75, auto.Rate, auto.AppQ75)
	}
}

func TestClairvoyantAvoidsTheMost(t *testing.T) {
	t.Parallel()
	s := sim.NewSite(sim.Generate(3, 60, 3*day))
	for _, keep := range []time.Duration{time.Minute, 10 * time.Minute, time.Hour} {
		fixed := sim.Play(s, sim.Fixed(keep), nil)
		c := sim.Play(s, sim.Clairvoyant(s, fixed.Waste), nil)
		if c.Cold > fixed.Cold || c.Waste > 1.03*fixed.Waste {
			t.Errorf("%s: fixed %d cold, %.2f GiB h; clairvoyant %d, %.2f", keep, fixed.Cold, fixed.Waste, c.Cold, c.Waste)
		}
	}
}

func TestGenerateFollowsItsSeed(t *testing.T) {
	t.Parallel()
	a, b := sim.Generate(7, 40, day), sim.Generate(7, 60, day)
	if diff := cmp.Diff(a.Apps, b.Apps[:40]); diff != "" {
		t.Errorf("one seed, two traces: %s", diff[:min(len(diff), 400)])
	}
	if cmp.Equal(a.Apps, sim.Generate(8, 40, day).Apps) {
		t.Error("two seeds, one trace")
	}
}

// TestGenerateHasTheShapes compares what comes out with the published points.
func TestGenerateHasTheShapes(t *testing.T) {
	t.Parallel()
	const apps = 600
	trace := sim.Generate(4, apps, 4*day)
	hourly, small := 0.0, 0.0
	for i := range trace.Apps {
		a := &trace.Apps[i]
		if float64(len(a.Calls))/4 <= 24 {
			hourly++
		}
		if a.Memory <= 170*functions.MiB {
			small++
		}
	}
	if share := hourly / apps; share < 0.38 || share > 0.55 {
		t.Errorf("%.2f of the applications are called hourly at most; 0.45 were published", share)
	}
	if share := small / apps; share < 0.4 || share > 0.85 {
		t.Errorf("%.2f of the applications take 170 MiB at most", share)
	}
}

func TestResultsRepeat(t *testing.T) {
	t.Parallel()
	play := func() *sim.Result {
		s := sim.NewSite(sim.Generate(5, 30, 2*day))
		return sim.Play(s, sim.Auto(s, functions.GiB), sim.NewFleet())
	}
	a, b := play(), play()
	if diff := cmp.Diff(a, b, cmpopts.IgnoreUnexported(sim.Result{})); diff != "" {
		t.Errorf("(-first +second):\n%s", diff)
	}
	if fewer, more := a.Beside(b); fewer != 0 || more != 0 {
		t.Errorf("of the same play %v of the applications are better, %v worse", fewer, more)
	}
	if out, err := json.Marshal(a); err != nil || !bytes.Contains(out, []byte(`"app_q75_cold"`)) {
		t.Errorf("%s, %v", out, err)
	}
}
