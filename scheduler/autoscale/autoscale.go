package autoscale

import (
	"fmt"
	"math"
	"time"

	"github.com/tatami-faas/tatami/functions"
)

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
	// Memory is what the decision before this one returned.
	Memory Memory
}

// level is how many slots are needed now. The backlog counts up to what is in flight, or what one instance runs.
func (in Signals) level(s Scale) int {
	return in.Waiting + in.InFlight + min(in.Backlog, max(in.InFlight, s.Concurrency))
}

// Decision is how many instances there should be, and why.
type Decision struct {
	Desired int
	Reason  string
	// Memory goes into the next decision's signals.
	Memory Memory
}

// want is a number of instances and why it is wanted.
type want struct {
	n   int
	why string
}

// raise makes it n where that is more.
func (w *want) raise(n int, format string, args ...any) {
	if n > w.n {
		w.n, w.why = n, fmt.Sprintf(format, args...)
	}
}

// Decide returns the number of instances the function should have at an instant. It is between Min and Max; at least 1 (if Max allows)
// while anything waits, runs or is queued; while nothing does, not above Current (except for Min and Reserved), and not to zero until the
// keep-alive has passed; in a panic not below Current. Of what there is it never gives up more than DownRate says, once in Step, until
// the keep-alive has passed.
func Decide(now time.Time, in Signals, s Scale) Decision {
	level := in.level(s)
	if quiet := now.Sub(in.LastDemand); level == 0 && (in.LastDemand.IsZero() || quiet >= s.KeepAlive) {
		return idle(now, in, s)
	}
	m := in.Memory
	w := need(now, level, in, s, &m)
	if s.Reserved > 0 {
		w.n += s.Reserved
		w.why += fmt.Sprintf("; %d in reserve", s.Reserved)
	}
	if m.InPanic() {
		w.raise(in.Current, "surge: no scaling down in it")
	}
	w.raise(s.Initial, "scale.initial is %d", s.Initial)
	w.bound(in, s)
	m.wanted.observe(now, s.delay(), w.n)
	if there := max(in.Current, s.rest()); level == 0 && w.n > there {
		// What ended without anybody waiting is started again by the next who waits.
		w = want{there, "nothing waits or runs now"}
	}
	// Nothing is started for the sake of a slow fall.
	w.fall(now, min(m.Desired, in.Current, s.most()), s, &m)
	m.Desired = w.n
	return Decision{Desired: w.n, Reason: w.why, Memory: m}
}

// need is what the load needs.
func need(now time.Time, level int, in Signals, s Scale, m *Memory) want {
	stable, over := in.History.Mean(now, s.Stable())
	surge, lately := in.History.Mean(now, s.panicWindow())
	bySurge, byLevel := ceilDiv(surge, s.target()), ceilDiv(float64(level), float64(s.Concurrency))
	n, near := steady(stable, s, m)
	var w want
	if byLevel > n || byLevel == n && in.Waiting > 0 {
		w = want{byLevel, describe(in, s)}
	} else {
		w = want{n, describeSteady(stable, over, near, s)}
	}
	if s.Burst > 0 {
		load := max(float64(level), surge)
		w.raise(ceilDiv(load+float64(s.Burst), float64(s.Concurrency)), "burst: slots for %d more than %.3g, %d per instance", s.Burst, load, s.Concurrency)
	}
	if most := max(surge/s.target(), float64(level)/float64(s.Concurrency)); most >= float64(PanicThreshold*max(1, in.Ready)) {
		m.Panic = now
	} else if m.InPanic() && now.Sub(m.Panic) >= s.Stable() {
		m.Panic, m.Peak = time.Time{}, 0
	}
	if m.InPanic() {
		w.raise(bySurge, "surge: mean concurrency %.1f over %s, %.3g per instance", surge, short(lately), s.target())
		w.raise(m.Peak, "surge: no scaling down in it")
		m.Peak = min(w.n, s.most())
	}
	if w.n < 1 {
		w.raise(1, "kept: demand %s ago, keep-alive %s", short(now.Sub(in.LastDemand)), short(s.KeepAlive))
	}
	return w
}

// steady is what the steady load needs; near says that it is more than that, which is too near the edge to let one go.
func steady(stable float64, s Scale, m *Memory) (n int, near bool) {
	n = ceilDiv(stable, s.target())
	if n < m.steady {
		if more := min(ceilDiv(stable*(1+Hysteresis), s.target()), m.steady); more > n {
			n, near = more, true
		}
	}
	m.steady = n
	return n, near
}

func describeSteady(stable float64, over time.Duration, near bool, s Scale) string {
	why := fmt.Sprintf("mean concurrency %.1f over %s, %.3g per instance", stable, short(over), s.target())
	if near {
		why += ": too near the edge to let one go"
	}
	return why
}

// bound keeps to the bounds and to the rate of the way up.
func (w *want) bound(in Signals, s Scale) {
	rate := s.UpRate
	if rate == 0 {
		rate = UpRate
	}
	if limit := int(math.Ceil(rate * float64(max(1, in.Ready)))); w.n > limit && w.n > in.Current {
		w.n = max(limit, in.Current)
		w.why += fmt.Sprintf("; at most %d at a time", limit)
	}
	if rest := s.rest(); rest > w.n {
		w.n, w.why = rest, s.resting()
	}
	if most := s.most(); w.n > most {
		w.why += fmt.Sprintf("; scale.max is %d, %d wanted", most, w.n)
		w.n = most
	}
}

// fall keeps to the delay and the rate of the way down from held.
func (w *want) fall(now time.Time, held int, s Scale, m *Memory) {
	if w.n >= held {
		return
	}
	w.raise(min(m.wanted.max(now), held), "wanted within the last %s", short(s.delay()))
	if w.n == held {
		return
	}
	if now.Sub(m.Fell) < Step {
		w.raise(held, "kept: the last fall was less than %s ago", short(Step))
		return
	}
	rate := s.DownRate
	if rate == 0 {
		rate = DownRate
	}
	least := int(float64(held) / rate)
	w.raise(least, "down from %d to no less than %d at once", held, least)
	m.Fell = now
}

func idle(now time.Time, in Signals, s Scale) Decision {
	w := want{s.rest(), "no demand yet"}
	if !in.LastDemand.IsZero() {
		w.why = fmt.Sprintf("no demand for %s", short(now.Sub(in.LastDemand)))
	}
	if w.n > 0 {
		w.why += "; " + s.resting()
	}
	m := Memory{Desired: w.n}
	if held := min(in.Memory.Desired, in.Current, s.most()); s.DownDelay > 0 && held > w.n {
		m.wanted = in.Memory.wanted
		m.wanted.observe(now, s.delay(), w.n)
		w.raise(min(m.wanted.max(now), held), "wanted within the last %s", short(s.DownDelay))
		m.Desired = w.n
	}
	return Decision{Desired: w.n, Reason: w.why, Memory: m}
}

func describe(in Signals, s Scale) string {
	why := fmt.Sprintf("%d waiting, %d in flight", in.Waiting, in.InFlight)
	if in.Backlog > 0 {
		why += fmt.Sprintf(", %d queued", in.Backlog)
	}
	return fmt.Sprintf("%s, %d at once per instance", why, s.Concurrency)
}

// ceilDiv rounds up, forgiving what floating point adds.
func ceilDiv(load, per float64) int {
	if load <= 0 || per <= 0 {
		return 0
	}
	return int(min(math.Ceil(load/per-1e-9), math.MaxInt32))
}

func short(d time.Duration) functions.Duration {
	if d < time.Second {
		return functions.Duration(d.Round(time.Millisecond))
	}
	return functions.Duration(d.Round(time.Second))
}
