package autoscale_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/scheduler/autoscale"
	"pgregory.net/rapid"
)

func mean(h *autoscale.History, now time.Time, window time.Duration) float64 {
	m, _ := h.Mean(now, window)
	return m
}

func near(a, b float64) bool { return math.Abs(a-b) <= 1e-6*math.Max(1, math.Abs(b)) }

// The mean over a window is the area under the level: several gateways add up, gaps count as nothing.
func TestHistoryMean(t *testing.T) {
	t.Parallel()
	var h autoscale.History
	if got := mean(&h, start, time.Minute); got != 0 {
		t.Errorf("empty: %v", got)
	}
	at := start
	for range 70 {
		h.State("a", at, 2, 2)
		h.State("b", at.Add(300*time.Millisecond), 3, 3)
		at = at.Add(time.Second)
	}
	if got, over := h.Mean(at, time.Minute); !near(got, 5) || over != time.Minute {
		t.Errorf("two gateways: %v over %s", got, over)
	}
	h.Drop("a")
	h.Drop("b")
	quiet := at.Add(30 * time.Second)
	// What the two stated last, a second before, is not known to have gone on.
	if got := mean(&h, quiet, time.Minute); math.Abs(got-2.5) > 0.2 {
		t.Errorf("half a minute of silence: %v", got)
	}
	if got := mean(&h, quiet, 6*time.Second); got != 0 {
		t.Errorf("silence: %v", got)
	}
	if got := mean(&h, at.Add(2*time.Minute), time.Minute); got != 0 {
		t.Errorf("long silence: %v", got)
	}
}

// A gateway's last statement holds for Silence and not longer; one that speaks again after that says nothing of the time between.
func TestASilentGatewayExpires(t *testing.T) {
	t.Parallel()
	var h autoscale.History
	h.State("a", start, 0, 10)
	if got := mean(&h, start.Add(autoscale.Silence), 6*time.Second); !near(got, 10*3.0/6) {
		t.Errorf("at the end of its time: %v", got)
	}
	if got := mean(&h, start.Add(autoscale.Silence+time.Millisecond), 6*time.Second); got != 0 {
		t.Errorf("after it: %v", got)
	}
	h.State("a", start.Add(5*time.Second), 10, 0)
	if got := mean(&h, start.Add(5*time.Second), 6*time.Second); got != 0 {
		t.Errorf("of the time between: %v", got)
	}
}

// A window longer than a minute needs to be asked for, and what is remembered already stays.
func TestHistoryKeeps(t *testing.T) {
	t.Parallel()
	var h autoscale.History
	at := start
	for i := range 600 {
		if i == 30 {
			h.Keep(10 * time.Minute)
		}
		h.State("a", at, 4, 4)
		at = at.Add(time.Second)
	}
	if got, over := h.Mean(at, 10*time.Minute); !near(got, 4) || over != 10*time.Minute {
		t.Errorf("%v over %s", got, over)
	}
	if got, over := h.Mean(at, 5*time.Minute); !near(got, 4) || over != 5*time.Minute {
		t.Errorf("%v over %s", got, over)
	}
}

// Whatever gateways state in whatever order, no second counts more than once for each: the mean is never above what all of them state.
func TestNothingCountsTwice(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var h autoscale.History
		const gateways, level = 3, 7.0
		at, now := start, start
		for range rapid.IntRange(1, 100).Draw(t, "statements") {
			at = at.Add(time.Duration(rapid.IntRange(-1500, 3000).Draw(t, "ms")) * time.Millisecond)
			if at.After(now) {
				now = at
			}
			from := fmt.Sprint(rapid.IntRange(1, gateways).Draw(t, "gateway"))
			switch rapid.IntRange(0, 9).Draw(t, "kind") {
			case 0:
				h.Drop(from)
			case 1:
				h.Keep(time.Duration(rapid.IntRange(1, 300).Draw(t, "keep")) * time.Second)
			case 2:
				h.State(from, at, level, level)
				fallthrough
			default:
				h.State(from, at, level, level)
			}
			window := time.Duration(rapid.IntRange(1, 60).Draw(t, "window")) * time.Second
			if got := mean(&h, now, window); got < 0 || got > gateways*level+1e-6 {
				t.Fatalf("%v over %s", got, window)
			}
		}
	})
}
