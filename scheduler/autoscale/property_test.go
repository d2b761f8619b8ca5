package autoscale_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/scheduler/autoscale"
	"pgregory.net/rapid"
)

// Whatever the load, the decision keeps to its bounds, never falls in a panic, falls no faster than its rate, and lets go only after the
// keep-alive.
func TestDecisionsKeepTheRules(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		l := newLoad(anyScale.Draw(t, "scale"))
		s := l.scale
		rate := s.DownRate
		if rate == 0 {
			rate = autoscale.DownRate
		}
		up := s.UpRate
		if up == 0 {
			up = autoscale.UpRate
		}
		var fell time.Time
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			if rapid.IntRange(0, 20).Draw(t, "pause") == 0 {
				l.now = l.now.Add(time.Duration(rapid.IntRange(1, 700).Draw(t, "seconds")) * time.Second)
			}
			l.sig.Backlog = rapid.SampledFrom([]int{0, 0, 0, 1, 1000}).Draw(t, "backlog")
			if l.sig.Backlog > 0 {
				l.sig.LastDemand = l.now.Add(time.Second)
			}
			l.pass(time.Duration(rapid.IntRange(100, 2000).Draw(t, "ms"))*time.Millisecond, anyLevel(t))
			before := l.sig
			d := l.decide()
			demanded := l.sig.Waiting+l.sig.InFlight+l.sig.Backlog > 0
			over := !demanded && (l.sig.LastDemand.IsZero() || l.now.Sub(l.sig.LastDemand) >= s.KeepAlive)
			there := min(before.Memory.Desired, before.Current, s.Max)
			switch {
			case d.Reason == "":
				t.Fatal("no reason")
			case d.Desired < s.Min || d.Desired > s.Max:
				t.Fatalf("%d is not between %d and %d", d.Desired, s.Min, s.Max)
			case d.Memory.InPanic() && d.Desired < min(l.sig.Current, s.Max):
				t.Fatalf("down from %d to %d in a panic: %s", l.sig.Current, d.Desired, d.Reason)
			case demanded && d.Desired < 1:
				t.Fatalf("nothing wanted with demand: %s", d.Reason)
			case d.Desired == 0 && !over && l.sig.Current > 0:
				t.Fatalf("to zero %s after demand, keep-alive %s", l.now.Sub(l.sig.LastDemand), s.KeepAlive)
			case d.Desired < s.Reserved:
				t.Fatalf("%d, %d are reserved", d.Desired, s.Reserved)
			case !demanded && d.Desired > max(l.sig.Current, s.Min, s.Reserved):
				t.Fatalf("up from %d to %d for nobody: %s", l.sig.Current, d.Desired, d.Reason)
			case d.Desired > max(l.sig.Current, s.Min, s.Reserved, ceil(up*float64(max(1, l.sig.Ready)))):
				t.Fatalf("from %d ready to %d at once", l.sig.Ready, d.Desired)
			case !over && d.Desired < int(float64(there)/rate):
				t.Fatalf("down from %d to %d at once: %s", there, d.Desired, d.Reason)
			case !over && d.Desired < there && l.now.Sub(fell) < autoscale.Step:
				t.Fatalf("down from %d to %d %s after the last fall: %s", there, d.Desired, l.now.Sub(fell), d.Reason)
			}
			if over {
				fell = time.Time{}
			} else if d.Desired < there {
				fell = l.now
			}
			if rapid.Bool().Draw(t, "applied") {
				l.apply(d)
			}
		}
	})
}

// From zero the first demand is answered by the very decision it comes with, of whichever kind it is.
func TestFromZeroAtTheFirstDemand(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := anyScale.Draw(t, "scale")
		s.Initial, s.Reserved, s.Burst, s.UpRate = 0, 0, 0, 0
		n := rapid.IntRange(1, 1000).Draw(t, "n")
		in := autoscale.Signals{Waiting: n, History: &autoscale.History{}, LastDemand: start}
		want := (n + s.Concurrency - 1) / s.Concurrency
		if rapid.Bool().Draw(t, "queued") {
			in.Waiting, in.Backlog, want = 0, n, 1
		}
		d := autoscale.Decide(start, in, s)
		if want = max(min(want, autoscale.UpRate, s.Max), s.Min); d.Desired != want {
			t.Fatalf("%d wait: desired %d (%s), want %d", n, d.Desired, d.Reason, want)
		}
	})
}

// More load never leads to fewer instances.
func TestMoreLoadNeverWantsFewer(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := anyScale.Draw(t, "scale")
		less, more := newLoad(s), newLoad(s)
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			level := anyLevel(t)
			ms := time.Duration(rapid.IntRange(100, 2000).Draw(t, "ms")) * time.Millisecond
			less.pass(ms, level)
			more.pass(ms, level+rapid.SampledFrom([]int{0, 0, 1, 20}).Draw(t, "extra"))
			// Both have the same instances, and the same past decisions.
			less.sig.Backlog = rapid.IntRange(0, 30).Draw(t, "backlog")
			more.sig.Backlog = less.sig.Backlog + rapid.SampledFrom([]int{0, 5}).Draw(t, "more backlog")
			more.sig.LastDemand, more.sig.Memory = less.sig.LastDemand, less.sig.Memory
			if less.sig.LastDemand.IsZero() {
				continue
			}
			a, b := less.decide(), more.decide()
			if a.Desired > b.Desired {
				t.Fatalf("%d (%s) with less, %d (%s) with more", a.Desired, a.Reason, b.Desired, b.Reason)
			}
			less.apply(a)
			more.sig.Ready, more.sig.Current = less.sig.Ready, less.sig.Current
		}
	})
}

// The same load through several gateways leads to the same decisions as through one.
func TestGatewaysAddUp(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := anyScale.Draw(t, "scale")
		one, many := newLoad(s), newLoad(s)
		many.gateways = rapid.IntRange(2, 5).Draw(t, "gateways")
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			level := anyLevel(t)
			ms := time.Duration(rapid.IntRange(100, 2500).Draw(t, "ms")) * time.Millisecond
			one.pass(ms, level)
			many.pass(ms, level)
			a, b := one.decide(), many.decide()
			if a.Desired != b.Desired {
				t.Fatalf("one gateway: %d (%s), %d of them: %d (%s)", a.Desired, a.Reason, many.gateways, b.Desired, b.Reason)
			}
			one.apply(a)
			many.apply(b)
		}
	})
}

// A step to any constant load leads, within some windows (surge, mean and delay), to what it needs, exactly from below and within the hysteresis
// from above, and there it stays.
func TestAStepReachesItsSteadyState(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := autoscale.Scale{
			Max: 10_000, Concurrency: rapid.IntRange(1, 50).Draw(t, "concurrency"), KeepAlive: time.Hour,
			Utilization: float64(rapid.IntRange(40, 100).Draw(t, "utilization")) / 100,
			Window:      time.Duration(rapid.SampledFrom([]int{6, 30, 60, 120}).Draw(t, "window")) * time.Second,
		}
		l := newLoad(s)
		from, to := rapid.IntRange(0, 200).Draw(t, "from"), rapid.IntRange(1, 200).Draw(t, "to")
		window := int(s.Window / time.Second)
		l.play(3*window, from)
		need := ceil(float64(to) / target(s))
		if to > from {
			if d, _ := l.play(window+1, to); d.Desired < need {
				t.Fatalf("from %d to %d: %d (%s) after a window, %d needed", from, to, d.Desired, d.Reason, need)
			}
		}
		// The surge ends a window after its last sign, which comes within a window; falls come one by one.
		l.play(4*window+20, to)
		most := ceil(float64(to) * (1 + autoscale.Hysteresis) / target(s))
		if d, changes := l.play(2*window, to); d.Desired < need || d.Desired > most || changes > 0 {
			t.Fatalf("from %d to %d: %d (%s), %d to %d needed, %d changes", from, to, d.Desired, d.Reason, need, most, changes)
		}
	})
}

// A constant load with noise, sampled at uneven times: once the window is full the number may still creep, down from a
// surge at the start and up to what the highest mean needs; but it does not go to and fro.
func TestNoiseDoesNotFlap(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := autoscale.Scale{
			Max: 1000, Concurrency: rapid.IntRange(1, 100).Draw(t, "concurrency"), KeepAlive: 10 * time.Minute,
			Utilization: float64(rapid.IntRange(50, 75).Draw(t, "utilization")) / 100,
		}
		l := newLoad(s)
		level := rapid.IntRange(1, 300).Draw(t, "level")
		noise := level / 5
		seed := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		rises, falls, turns, last := 0, 0, 0, -1
		for l.now.Sub(start) < 10*time.Minute {
			l.pass(time.Duration(400+seed.IntN(1200))*time.Millisecond, level-noise+seed.IntN(2*noise+1))
			d := l.decide()
			if l.apply(d); l.now.Sub(start) < 140*time.Second {
				continue
			}
			if last >= 0 && d.Desired > last {
				rises++
			} else if d.Desired < last {
				falls++
				if rises > 0 {
					turns++
				}
				rises = 0
			}
			last = d.Desired
		}
		if turns > 2 || falls+rises > 30 {
			t.Fatalf("%d turns, %d rises and %d falls in 8 minutes at %d ± %d", turns, rises, falls, level, noise)
		}
	})
}

// After a surge that lasts a few seconds there are not fewer instances until it counts as over, however soon fewer would do and falls are allowed.
func TestNoScalingDownInASurge(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		l := newLoad(autoscale.Scale{Max: 1000, Concurrency: rapid.IntRange(1, 10).Draw(t, "concurrency"), KeepAlive: time.Hour, DownDelay: time.Second, DownRate: 1000})
		l.play(120, l.scale.Concurrency)
		l.play(rapid.IntRange(3, 10).Draw(t, "seconds"), l.scale.Concurrency*rapid.IntRange(20, 90).Draw(t, "surge"))
		most := l.sig.Current
		if most < 5 {
			t.Fatalf("%d in a surge", most)
		}
		for l.sig.Memory.InPanic() {
			d := l.step(rapid.IntRange(0, l.scale.Concurrency).Draw(t, "after"))
			if d.Memory.InPanic() && d.Desired < most {
				t.Fatalf("down from %d to %d in a surge: %s", most, d.Desired, d.Reason)
			}
			l.apply(d)
			most = max(most, d.Desired)
		}
		if d, _ := l.play(10, 1); d.Desired >= most {
			t.Fatalf("%d after the surge, %d in it: %s", d.Desired, most, d.Reason)
		}
	})
}
