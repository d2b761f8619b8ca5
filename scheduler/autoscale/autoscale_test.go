package autoscale_test

import (
	"strings"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/scheduler/autoscale"
)

func TestDecide(t *testing.T) {
	t.Parallel()
	minute := autoscale.Scale{Max: 100, Concurrency: 10, KeepAlive: time.Minute}
	with := func(change func(*autoscale.Scale)) autoscale.Scale {
		s := minute
		change(&s)
		return s
	}
	ago := func(d time.Duration) time.Time { return start.Add(-d) }
	for name, tc := range map[string]struct {
		in    autoscale.Signals
		scale autoscale.Scale
		want  int
		why   string
	}{
		"nothing ever":           {scale: minute, want: 0, why: "no demand yet"},
		"min without demand":     {scale: autoscale.Scale{Min: 3, Max: 5, Concurrency: 1, KeepAlive: time.Minute}, want: 3, why: "scale.min is 3"},
		"the first waits":        {in: autoscale.Signals{Waiting: 1, LastDemand: start}, scale: minute, want: 1, why: "1 waiting"},
		"the first is queued":    {in: autoscale.Signals{Backlog: 1, LastDemand: start}, scale: minute, want: 1, why: "1 queued"},
		"many wait":              {in: autoscale.Signals{Waiting: 95, InFlight: 10, Ready: 1, Current: 1, LastDemand: start}, scale: minute, want: 11, why: "95 waiting"},
		"a long queue from zero": {in: autoscale.Signals{Backlog: 10000, LastDemand: start}, scale: minute, want: 1, why: "10000 queued"},
		"a long queue doubles":   {in: autoscale.Signals{Backlog: 10000, InFlight: 40, Ready: 4, Current: 4, LastDemand: start}, scale: minute, want: 8, why: "10000 queued"},
		"waiting and queued add": {in: autoscale.Signals{Waiting: 10, Backlog: 10000, InFlight: 40, Ready: 4, Current: 4, LastDemand: start}, scale: minute, want: 9, why: "10 waiting"},
		"max":                    {in: autoscale.Signals{Waiting: 500, LastDemand: start}, scale: autoscale.Scale{Max: 7, Concurrency: 1, KeepAlive: time.Minute}, want: 7, why: "scale.max is 7, 500 wanted"},
		"rate":                   {in: autoscale.Signals{Waiting: 5000, LastDemand: start}, scale: autoscale.Scale{Max: 9999, Concurrency: 1, KeepAlive: time.Minute}, want: autoscale.UpRate, why: "at most 1000 at a time"},
		"another rate":           {in: autoscale.Signals{Waiting: 200, Ready: 5, Current: 5, LastDemand: start}, scale: autoscale.Scale{Max: 9999, Concurrency: 1, KeepAlive: time.Minute, UpRate: 1.5}, want: 8, why: "at most 8 at a time"},
		"a rate below current":   {in: autoscale.Signals{Waiting: 200, Ready: 1, Current: 20, LastDemand: start}, scale: autoscale.Scale{Max: 9999, Concurrency: 1, KeepAlive: time.Minute, UpRate: 2}, want: 20, why: "at most 2 at a time"},
		"kept":                   {in: autoscale.Signals{Ready: 3, Current: 3, LastDemand: ago(59 * time.Second)}, scale: minute, want: 1, why: "kept: demand 59s ago"},
		"let go":                 {in: autoscale.Signals{Ready: 3, Current: 3, LastDemand: ago(60 * time.Second)}, scale: minute, want: 0, why: "no demand for 1m"},
		"not started to be kept": {in: autoscale.Signals{LastDemand: ago(time.Second)}, scale: minute, want: 0, why: "nothing waits"},
		"a panic ends with demand": {
			in:    autoscale.Signals{Current: 9, Ready: 9, LastDemand: ago(time.Minute), Memory: autoscale.Memory{Panic: ago(time.Minute), Peak: 9, Desired: 9}},
			scale: minute, want: 0, why: "no demand for 1m",
		},
		"reserved without demand": {scale: with(func(s *autoscale.Scale) { s.Reserved = 2 }), want: 2, why: "scale.reserved is 2"},
		"reserved beside min":     {scale: with(func(s *autoscale.Scale) { s.Min, s.Reserved = 4, 2 }), want: 4, why: "scale.min is 4"},
		"reserved beyond the load": {
			in:    autoscale.Signals{Waiting: 15, LastDemand: start},
			scale: with(func(s *autoscale.Scale) { s.Reserved = 2 }), want: 4, why: "15 waiting, 0 in flight, 10 at once per instance; 2 in reserve",
		},
		"reserved within max": {in: autoscale.Signals{Waiting: 95, LastDemand: start}, scale: with(func(s *autoscale.Scale) { s.Max, s.Reserved = 11, 5 }), want: 11, why: "scale.max is 11, 15 wanted"},
		"initial":             {in: autoscale.Signals{Waiting: 1, LastDemand: start}, scale: with(func(s *autoscale.Scale) { s.Initial = 4 }), want: 4, why: "scale.initial is 4"},
		"initial is no min":   {scale: with(func(s *autoscale.Scale) { s.Initial = 4 }), want: 0, why: "no demand yet"},
		"burst":               {in: autoscale.Signals{Waiting: 5, LastDemand: start}, scale: with(func(s *autoscale.Scale) { s.Burst = 30 }), want: 4, why: "slots for 30 more than 5"},
		"burst without demand": {
			scale: with(func(s *autoscale.Scale) { s.Burst = 30 }), want: 0, why: "no demand yet",
		},
		"a lower max holds at once": {
			in:    autoscale.Signals{InFlight: 80, Ready: 8, Current: 8, LastDemand: start, Memory: autoscale.Memory{Panic: start, Peak: 8, Desired: 8}},
			scale: with(func(s *autoscale.Scale) { s.Max = 2 }), want: 2, why: "scale.max is 2",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := autoscale.Decide(start, tc.in, tc.scale)
			if d.Desired != tc.want || !strings.Contains(d.Reason, tc.why) {
				t.Errorf("desired %d (%s), want %d (%s)", d.Desired, d.Reason, tc.want, tc.why)
			}
		})
	}
}

func TestSteadyLoadGetsHeadroom(t *testing.T) {
	t.Parallel()
	for utilization, want := range map[float64]int{0: 8, 0.5: 10, 1: 5} {
		l := newLoad(autoscale.Scale{Max: 100, Concurrency: 10, KeepAlive: 5 * time.Minute, Utilization: utilization})
		if d, _ := l.play(180, 50); d.Desired != want {
			t.Errorf("utilization %v: desired %d (%s), want %d", utilization, d.Desired, d.Reason, want)
		}
	}
}

func TestAStepUpIsFollowedAtOnceAndDownSlowly(t *testing.T) {
	t.Parallel()
	l := newLoad(autoscale.Scale{Max: 100, Concurrency: 1, KeepAlive: 5 * time.Minute})
	l.play(120, 4)
	calm := l.sig.Ready
	d := l.step(40)
	if d.Desired < 40 || !d.Memory.InPanic() {
		t.Fatalf("after a step from 4 to 40: %d (%s)", d.Desired, d.Reason)
	}
	l.apply(d)
	for i := range 55 {
		if d = l.step(4); d.Desired < l.sig.Ready {
			t.Fatalf("down from %d to %d %d s after the surge: %s", l.sig.Ready, d.Desired, i+1, d.Reason)
		}
		l.apply(d)
	}
	if d, _ = l.play(150, 4); d.Desired > calm+1 || d.Desired < calm || d.Memory.InPanic() {
		t.Errorf("after the surge: %d (%s), before it %d", d.Desired, d.Reason, calm)
	}
}

// One request that takes long at concurrency 1 is no steady load: it gets the one instance it needs.
func TestOneSlowRequestStartsOneInstance(t *testing.T) {
	t.Parallel()
	l := newLoad(autoscale.Scale{Max: 100, Concurrency: 1, KeepAlive: 5 * time.Minute})
	for range 4 {
		d := l.step(1)
		if d.Desired != 1 {
			t.Fatalf("%s after it: %d (%s)", l.now.Sub(start), d.Desired, d.Reason)
		}
		l.apply(d)
	}
}

// Fewer count only after the delay, to zero too; more count at once.
func TestDownDelay(t *testing.T) {
	t.Parallel()
	l := newLoad(autoscale.Scale{Max: 100, Concurrency: 10, KeepAlive: time.Minute, Window: 6 * time.Second, DownDelay: 5 * time.Minute})
	l.play(60, 100)
	full := l.sig.Current
	if d, changes := l.play(299, 5); d.Desired != full || changes != 0 || !strings.Contains(d.Reason, "within the last 5m") {
		t.Errorf("299 s after the fall: %d of %d (%s), %d changes", d.Desired, full, d.Reason, changes)
	}
	if d, _ := l.play(60, 5); d.Desired != 1 {
		t.Errorf("359 s after the fall: %d (%s)", d.Desired, d.Reason)
	}
	if d, _ := l.play(280, 0); d.Desired != 1 {
		t.Errorf("280 s after the end: %d (%s)", d.Desired, d.Reason)
	}
	if d, _ := l.play(200, 0); d.Desired != 0 {
		t.Errorf("480 s after the end: %d (%s)", d.Desired, d.Reason)
	}
}

// A delay that changes, as the keep-alive it follows may with every decision, neither forgets what was wanted nor makes it new.
func TestADelayMayChange(t *testing.T) {
	t.Parallel()
	l := newLoad(autoscale.Scale{Max: 100, Concurrency: 10, KeepAlive: time.Hour, Window: 6 * time.Second})
	alternate := func(seconds, concurrency int) (d autoscale.Decision) {
		for i := range seconds {
			l.scale.DownDelay = time.Duration(40+20*(i%2)) * time.Second
			d, _ = l.play(1, concurrency)
		}
		return d
	}
	alternate(30, 100)
	full := l.sig.Current
	if d := alternate(40, 5); d.Desired != full {
		t.Errorf("40 s after the fall: %d of %d (%s)", d.Desired, full, d.Reason)
	}
	if d := alternate(60, 5); d.Desired != 1 {
		t.Errorf("100 s after the fall: %d of %d (%s)", d.Desired, full, d.Reason)
	}
}

// A square wave with a period within the stable window gets what its height needs as long as it goes on.
func TestASquareWaveDoesNotFlap(t *testing.T) {
	t.Parallel()
	for _, half := range []int{3, 10, 25} {
		l := newLoad(autoscale.Scale{Max: 100, Concurrency: 10, KeepAlive: 5 * time.Minute})
		changes := 0
		for i := range 20 * 60 / half / 2 {
			_, up := l.play(half, 90)
			_, down := l.play(half, 10)
			if i*half*2 >= 120 {
				changes += up + down
			}
		}
		if changes > 1 {
			t.Errorf("half a period of %d s: %d changes in 18 minutes", half, changes)
		}
	}
}

func BenchmarkDecide(b *testing.B) {
	l := newLoad(autoscale.Scale{Max: 100, Concurrency: 10, KeepAlive: time.Minute})
	l.play(60, 42)
	b.ReportAllocs()
	for b.Loop() {
		l.decide()
	}
}
