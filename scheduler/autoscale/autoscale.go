package autoscale

import (
	"fmt"
	"math"
	"time"

	"github.com/tatami-faas/tatami/functions"
)

// The constants of the model.
const (
	// Utilisation is the share of its concurrency that an instance should carry under steady load.
	Utilisation = 0.7
	// MaxWindow and MinWindow bound the stable window, which is as long as the keep-alive in between; PanicShare is the panic
	// window's part of it.
	MaxWindow  = 60 * time.Second
	MinWindow  = 6 * time.Second
	PanicShare = 10
	// PanicThreshold is how many times the ready instances a surge must need.
	PanicThreshold = 2
	// UpRate is how many times the ready instances one decision may want, UpFloor what it may always want.
	UpRate  = 10
	UpFloor = 100
)

// Scale is what the function's configuration says.
type Scale struct {
	Min, Max int
	// Concurrency is how many invocations one instance runs at once.
	Concurrency int
	KeepAlive   time.Duration
}

// Window returns the stable window: a minute, or the keep-alive where that is shorter, 6 s at least.
func (s Scale) Window() time.Duration { return min(max(s.KeepAlive, MinWindow), MaxWindow) }

// Signals is what is known of a function's load.
type Signals struct {
	// Waiting counts invocations without a slot, Backlog queued ones, InFlight slots held: now, over all gateways.
	Waiting, Backlog, InFlight int
	// History is the concurrency of the last minute.
	History *History
	// LastDemand is when there was demand last; zero when never.
	LastDemand time.Time
	// Ready counts the instances that take requests, Current those and the ones that are starting.
	Ready, Current int
	// Panic is what the decision before this one returned.
	Panic Panic
}

// Panic is a surge under way. The zero value is none.
type Panic struct {
	// Last is when load was last above the threshold.
	Last time.Time
	// Peak is the most that was wanted in it.
	Peak int
}

// On reports whether there is a surge.
func (p Panic) On() bool { return !p.Last.IsZero() }

// Decision is how many instances there should be, and why.
type Decision struct {
	Desired int
	Reason  string
	// Panic goes into the next decision's signals.
	Panic Panic
}

// Decide returns the number of instances the function should have at an instant. It is between Min and Max; at least 1 (if Max allows) while
// anything waits, runs or is queued; while nothing does, not above Current (except for Min), and not to zero until the keep-alive has
// passed; in a panic not below Current.
func Decide(now time.Time, in Signals, s Scale) Decision {
	lo, hi := max(s.Min, 0), max(s.Max, s.Min)
	level := in.Waiting + in.InFlight + min(in.Backlog, max(in.InFlight, s.Concurrency))
	quiet := now.Sub(in.LastDemand)
	if level == 0 && (in.LastDemand.IsZero() || quiet >= s.KeepAlive) {
		return idle(lo, quiet, in.LastDemand.IsZero())
	}

	target := float64(s.Concurrency) * Utilisation
	window := s.Window()
	stable := in.History.mean(now, window)
	surge := in.History.mean(now, max(window/PanicShare, time.Second))
	byStable, bySurge := ceilDiv(stable, target), ceilDiv(surge, target)
	byLevel := ceilDiv(float64(level), float64(s.Concurrency))

	p := in.Panic
	if most := max(bySurge, byLevel); most >= PanicThreshold*max(1, in.Ready) {
		p.Last = now
	} else if p.On() && now.Sub(p.Last) >= window {
		p = Panic{}
	}

	want, why := byStable, fmt.Sprintf("mean concurrency %.1f over %s, %.3g per instance", stable, short(window), target)
	if byLevel > want || byLevel == want && in.Waiting > 0 {
		want, why = byLevel, describe(in, s)
	}
	if p.On() {
		p.Peak = min(max(p.Peak, bySurge, want), hi)
		if bySurge > want {
			want, why = bySurge, fmt.Sprintf("surge: mean concurrency %.1f over %s, %.3g per instance", surge, short(window/PanicShare), target)
		}
		if p.Peak > want {
			want, why = p.Peak, "surge: no scaling down in it"
		}
		if kept := min(in.Current, hi); kept > want {
			want, why = kept, "surge: no scaling down in it"
		}
	}
	if want < 1 {
		want, why = 1, fmt.Sprintf("kept: demand %s ago, keep-alive %s", short(quiet), short(s.KeepAlive))
	}
	if level == 0 && want > max(in.Current, lo) {
		// What ended without anybody waiting is started again by the next who waits.
		want, why = max(in.Current, lo), "nothing waits or runs now"
	}
	if limit := max(UpFloor, UpRate*in.Ready); want > limit && want > in.Current {
		want = max(limit, in.Current)
		why += fmt.Sprintf("; at most %d at a time", limit)
	}
	switch {
	case want < lo:
		want, why = lo, fmt.Sprintf("scale.min is %d", lo)
	case want > hi:
		why += fmt.Sprintf("; scale.max is %d, %d wanted", hi, want)
		want = hi
	}
	return Decision{Desired: want, Reason: why, Panic: p}
}

func idle(lo int, quiet time.Duration, never bool) Decision {
	why := "no demand yet"
	if !never {
		why = fmt.Sprintf("no demand for %s", short(quiet))
	}
	if lo > 0 {
		why += fmt.Sprintf("; scale.min is %d", lo)
	}
	return Decision{Desired: lo, Reason: why}
}

func describe(in Signals, s Scale) string {
	why := fmt.Sprintf("%d waiting, %d in flight", in.Waiting, in.InFlight)
	if in.Backlog > 0 {
		why += fmt.Sprintf(", %d queued", in.Backlog)
	}
	return fmt.Sprintf("%s, %d at once per instance", why, s.Concurrency)
}

func (h *History) mean(now time.Time, window time.Duration) float64 {
	if h == nil {
		return 0
	}
	return h.Mean(now, window)
}

// ceilDiv rounds up, forgiving what floating point adds.
func ceilDiv(load, per float64) int {
	if load <= 0 || per <= 0 {
		return 0
	}
	return int(math.Ceil(load/per - 1e-9))
}

func short(d time.Duration) functions.Duration {
	if d < time.Second {
		return functions.Duration(d.Round(time.Millisecond))
	}
	return functions.Duration(d.Round(time.Second))
}
