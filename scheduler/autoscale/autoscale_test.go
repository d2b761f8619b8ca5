package autoscale_test

import (
	"math"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/scheduler/autoscale"
	"pgregory.net/rapid"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// load plays a function whose instances come and go as decided, one second a step.
type load struct {
	now   time.Time
	scale autoscale.Scale
	sig   autoscale.Signals
	hist  autoscale.History
}

func newLoad(s autoscale.Scale) *load {
	l := &load{now: start, scale: s}
	l.sig.History = &l.hist
	return l
}

func (l *load) step(concurrency float64) autoscale.Decision {
	next := l.now.Add(time.Second)
	l.hist.Add(l.now, next, concurrency)
	l.now = next
	l.sig.InFlight, l.sig.Waiting = int(math.Ceil(concurrency)), 0
	if slots := l.sig.Ready * l.scale.Concurrency; l.sig.InFlight > slots {
		l.sig.Waiting, l.sig.InFlight = l.sig.InFlight-slots, slots
	}
	if concurrency > 0 {
		l.sig.LastDemand = l.now
	}
	return l.decide()
}

func (l *load) decide() autoscale.Decision {
	d := autoscale.Decide(l.now, l.sig, l.scale)
	l.sig.Panic = d.Panic
	return d
}

func (l *load) apply(d autoscale.Decision) { l.sig.Ready, l.sig.Current = d.Desired, d.Desired }

func TestDecide(t *testing.T) {
	t.Parallel()
	minute := autoscale.Scale{Max: 100, Concurrency: 10, KeepAlive: time.Minute}
	ago := func(d time.Duration) time.Time { return start.Add(-d) }
	for name, tc := range map[string]struct {
		in    autoscale.Signals
		scale autoscale.Scale
		want  int
	}{
		"nothing ever":             {scale: minute, want: 0},
		"min without demand":       {scale: autoscale.Scale{Min: 3, Max: 5, Concurrency: 1, KeepAlive: time.Minute}, want: 3},
		"the first waits":          {in: autoscale.Signals{Waiting: 1, LastDemand: start}, scale: minute, want: 1},
		"the first is queued":      {in: autoscale.Signals{Backlog: 1, LastDemand: start}, scale: minute, want: 1},
		"many wait":                {in: autoscale.Signals{Waiting: 95, InFlight: 10, Ready: 1, Current: 1, LastDemand: start}, scale: minute, want: 11},
		"a long queue from zero":   {in: autoscale.Signals{Backlog: 10000, LastDemand: start}, scale: minute, want: 1},
		"a long queue doubles":     {in: autoscale.Signals{Backlog: 10000, InFlight: 40, Ready: 4, Current: 4, LastDemand: start}, scale: minute, want: 8},
		"waiting and queued add":   {in: autoscale.Signals{Waiting: 10, Backlog: 10000, InFlight: 40, Ready: 4, Current: 4, LastDemand: start}, scale: minute, want: 9},
		"max":                      {in: autoscale.Signals{Waiting: 500, LastDemand: start}, scale: autoscale.Scale{Max: 7, Concurrency: 1, KeepAlive: time.Minute}, want: 7},
		"rate":                     {in: autoscale.Signals{Waiting: 5000, LastDemand: start}, scale: autoscale.Scale{Max: 9999, Concurrency: 1, KeepAlive: time.Minute}, want: autoscale.UpFloor},
		"rate with many ready":     {in: autoscale.Signals{Waiting: 9000, InFlight: 50, Ready: 50, Current: 50, LastDemand: start}, scale: autoscale.Scale{Max: 9999, Concurrency: 1, KeepAlive: time.Minute}, want: 500},
		"kept":                     {in: autoscale.Signals{Ready: 3, Current: 3, LastDemand: ago(59 * time.Second)}, scale: minute, want: 1},
		"let go":                   {in: autoscale.Signals{Ready: 3, Current: 3, LastDemand: ago(60 * time.Second)}, scale: minute, want: 0},
		"not started to be kept":   {in: autoscale.Signals{LastDemand: ago(time.Second)}, scale: minute, want: 0},
		"a panic ends with demand": {in: autoscale.Signals{Current: 9, Ready: 9, LastDemand: ago(time.Minute), Panic: autoscale.Panic{Last: ago(time.Minute), Peak: 9}}, scale: minute, want: 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := autoscale.Decide(start, tc.in, tc.scale)
			if d.Desired != tc.want || d.Reason == "" {
				t.Errorf("desired %d (%s), want %d", d.Desired, d.Reason, tc.want)
			}
		})
	}
}

func TestSteadyLoadGetsHeadroom(t *testing.T) {
	t.Parallel()
	l := newLoad(autoscale.Scale{Max: 100, Concurrency: 10, KeepAlive: 5 * time.Minute})
	var d autoscale.Decision
	for range 180 {
		d = l.step(50)
		l.apply(d)
	}
	if d.Desired != 8 {
		t.Errorf("desired %d (%s), want 8: 50 at 7 each", d.Desired, d.Reason)
	}
}

func TestAStepUpIsFollowedAtOnceAndDownSlowly(t *testing.T) {
	t.Parallel()
	l := newLoad(autoscale.Scale{Max: 100, Concurrency: 1, KeepAlive: 5 * time.Minute})
	for range 120 {
		l.apply(l.step(4))
	}
	calm := l.sig.Ready
	d := l.step(40)
	if d.Desired < 40 || !d.Panic.On() {
		t.Fatalf("after a step from 4 to 40: %d (%s)", d.Desired, d.Reason)
	}
	l.apply(d)
	for i := range 55 {
		if d = l.step(4); d.Desired < l.sig.Ready {
			t.Fatalf("down from %d to %d %d s after the surge: %s", l.sig.Ready, d.Desired, i+1, d.Reason)
		}
		l.apply(d)
	}
	for range 70 {
		d = l.step(4)
		l.apply(d)
	}
	if d.Desired != calm || d.Panic.On() {
		t.Errorf("two minutes after the surge: %d (%s), before it %d", d.Desired, d.Reason, calm)
	}
}

var anyScale = rapid.Custom(func(t *rapid.T) autoscale.Scale {
	lo := rapid.IntRange(0, 5).Draw(t, "min")
	return autoscale.Scale{
		Min: lo, Max: rapid.IntRange(max(lo, 1), 300).Draw(t, "max"), Concurrency: rapid.IntRange(1, 100).Draw(t, "concurrency"),
		KeepAlive: time.Duration(rapid.IntRange(1, 600).Draw(t, "keepAlive")) * time.Second,
	}
})

// Whatever the load, the decision keeps to its bounds, never falls in a panic, and lets go only after the keep-alive.
func TestDecisionsKeepTheRules(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		l := newLoad(anyScale.Draw(t, "scale"))
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			level := rapid.SampledFrom([]float64{0, 0, 0.01, 0.5, 1, 3, 10, 50, 400}).Draw(t, "level")
			if rapid.IntRange(0, 20).Draw(t, "pause") == 0 {
				l.now = l.now.Add(time.Duration(rapid.IntRange(1, 700).Draw(t, "seconds")) * time.Second)
			}
			l.sig.Backlog = rapid.SampledFrom([]int{0, 0, 0, 1, 1000}).Draw(t, "backlog")
			if l.sig.Backlog > 0 {
				l.sig.LastDemand = l.now.Add(time.Second)
			}
			d := l.step(level)
			demanded := l.sig.Waiting+l.sig.InFlight+l.sig.Backlog > 0
			switch {
			case d.Desired < l.scale.Min || d.Desired > l.scale.Max:
				t.Fatalf("%d is not between %d and %d", d.Desired, l.scale.Min, l.scale.Max)
			case d.Panic.On() && d.Desired < min(l.sig.Current, l.scale.Max):
				t.Fatalf("down from %d to %d in a panic: %s", l.sig.Current, d.Desired, d.Reason)
			case demanded && d.Desired < 1:
				t.Fatalf("nothing wanted with demand: %s", d.Reason)
			case d.Desired == 0 && l.sig.Current > 0 && l.now.Sub(l.sig.LastDemand) < l.scale.KeepAlive && !l.sig.LastDemand.IsZero():
				t.Fatalf("to zero %s after demand, keep-alive %s", l.now.Sub(l.sig.LastDemand), l.scale.KeepAlive)
			case d.Desired > l.sig.Current && d.Desired > l.scale.Min && d.Desired > max(autoscale.UpFloor, autoscale.UpRate*l.sig.Ready):
				t.Fatalf("from %d ready to %d at once", l.sig.Ready, d.Desired)
			}
			if rapid.Bool().Draw(t, "applied") {
				l.apply(d)
			}
		}
	})
}

// From zero the first demand is answered by the very decision it comes with.
func TestFromZeroAtTheFirstDemand(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := anyScale.Draw(t, "scale")
		waiting := rapid.IntRange(1, 1000).Draw(t, "waiting")
		var h autoscale.History
		d := autoscale.Decide(start, autoscale.Signals{Waiting: waiting, History: &h, LastDemand: start}, s)
		want := max(min((waiting+s.Concurrency-1)/s.Concurrency, autoscale.UpFloor, s.Max), s.Min)
		if d.Desired != want {
			t.Fatalf("%d wait: desired %d (%s), want %d", waiting, d.Desired, d.Reason, want)
		}
	})
}

// A constant load, sampled at uneven times, gets a constant number once the window is full.
func TestConstantLoadDoesNotFlap(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := anyScale.Draw(t, "scale")
		level := rapid.IntRange(1, 200).Draw(t, "level")
		l := newLoad(s)
		l.sig.InFlight = level
		var settled autoscale.Decision
		for l.now.Sub(start) < 300*time.Second {
			next := l.now.Add(time.Duration(rapid.IntRange(50, 1400).Draw(t, "ms")) * time.Millisecond)
			l.hist.Add(l.now, next, float64(level))
			l.now, l.sig.LastDemand = next, next
			d := l.decide()
			l.apply(d)
			switch at := l.now.Sub(start); {
			case at < 130*time.Second:
			case settled.Desired == 0:
				settled = d
			case d.Desired != settled.Desired:
				t.Fatalf("after %s from %d (%s) to %d (%s)", at, settled.Desired, settled.Reason, d.Desired, d.Reason)
			}
		}
	})
}

// The mean over a window is the area under the level: several gateways add up, gaps count as nothing.
func TestHistoryMean(t *testing.T) {
	t.Parallel()
	var h autoscale.History
	if got := h.Mean(start, time.Minute); got != 0 {
		t.Errorf("empty: %v", got)
	}
	at := start
	for range 60 {
		h.Add(at, at.Add(time.Second), 2)
		h.Add(at, at.Add(time.Second), 3)
		at = at.Add(time.Second)
	}
	near := func(got, want float64) bool { return math.Abs(got-want) < 0.09*want+1e-9 }
	if got := h.Mean(at, time.Minute); !near(got, 5) {
		t.Errorf("two gateways: %v", got)
	}
	quiet := at.Add(30 * time.Second)
	if got := h.Mean(quiet, time.Minute); !near(got, 2.5) {
		t.Errorf("half a minute of silence: %v", got)
	}
	if got := h.Mean(quiet, 6*time.Second); got != 0 {
		t.Errorf("silence: %v", got)
	}
	if got := h.Mean(at.Add(2*time.Minute), time.Minute); got != 0 {
		t.Errorf("long silence: %v", got)
	}
}

func BenchmarkDecide(b *testing.B) {
	l := newLoad(autoscale.Scale{Max: 100, Concurrency: 10, KeepAlive: time.Minute})
	for range 60 {
		l.apply(l.step(42))
	}
	b.ReportAllocs()
	for b.Loop() {
		l.decide()
	}
}
