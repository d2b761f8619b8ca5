package live

import (
	"math"
	"slices"
	"time"

	"github.com/tatami-faas/tatami/functions"
)

const (
	sparkStep = 30 * time.Second
	// sparkLen steps are 15 minutes.
	sparkLen   = 30
	rateWindow = 10 * time.Second
)

// counts are counters of one function.
type counts struct{ requests, errors, cold uint64 }

// since is what was counted after before; a counter that went back began anew.
func (c counts) since(before counts) counts {
	d := func(now, then uint64) uint64 {
		if now < then {
			return now
		}
		return now - then
	}
	return counts{d(c.requests, before.requests), d(c.errors, before.errors), d(c.cold, before.cold)}
}

func (c counts) add(o counts) counts {
	return counts{c.requests + o.requests, c.errors + o.errors, c.cold + o.cold}
}

// sample is the sum of requests at a time.
type sample struct {
	at       time.Time
	requests uint64
}

// bucket is what happened within one step of 30 seconds; dead and failures are the levels at its begin.
type bucket struct {
	step int64
	counts
	dead     int
	failures uint64
}

// track is the past of one function, of fixed size.
type track struct {
	total   uint64
	rate    []sample
	buckets []bucket
}

// add takes what came since the last call.
func (t *track) add(now time.Time, d counts, dead int, failures uint64) {
	t.total += d.requests
	t.rate = append(t.rate, sample{now, t.total})
	// One sample older than the window stays: the rate is taken from it.
	for len(t.rate) > 2 && now.Sub(t.rate[1].at) >= rateWindow {
		t.rate = slices.Delete(t.rate, 0, 1)
	}
	step := now.Unix() / int64(sparkStep/time.Second)
	if n := len(t.buckets); n == 0 || t.buckets[n-1].step < step {
		if n > 0 && step-t.buckets[n-1].step >= sparkLen {
			t.buckets = t.buckets[:0]
		}
		t.buckets = append(t.buckets, bucket{step: step, dead: dead, failures: failures})
		for t.buckets[0].step <= step-sparkLen {
			t.buckets = slices.Delete(t.buckets, 0, 1)
		}
	}
	b := &t.buckets[len(t.buckets)-1]
	b.counts = b.add(d)
}

func (t *track) rps() float64 {
	if len(t.rate) < 2 {
		return 0
	}
	first, last := t.rate[0], t.rate[len(t.rate)-1]
	d := last.at.Sub(first.at).Seconds()
	if d <= 0 {
		return 0
	}
	return round(float64(last.requests-first.requests)/d, 100)
}

// over sums the last n steps, the one that is being filled included.
func (t *track) over(n int64) counts {
	var sum counts
	if len(t.buckets) == 0 {
		return sum
	}
	newest := t.buckets[len(t.buckets)-1].step
	for _, b := range t.buckets {
		if b.step > newest-n {
			sum = sum.add(b.counts)
		}
	}
	return sum
}

// grown is by how much the levels of dead letters and of failed starts rose within the 15 minutes.
func (t *track) grown(dead int, failures uint64) (int, uint64) {
	if len(t.buckets) == 0 {
		return 0, 0
	}
	first := t.buckets[0]
	var failed uint64
	if failures > first.failures {
		failed = failures - first.failures
	}
	return max(0, dead-first.dead), failed
}

// spark is the rate in each ended step, oldest first.
func (t *track) spark() []float64 {
	out := make([]float64, sparkLen-1)
	if len(t.buckets) == 0 {
		return out
	}
	newest := t.buckets[len(t.buckets)-1].step
	for _, b := range t.buckets {
		if i := sparkLen - 1 - int(newest-b.step); i >= 0 && i < len(out) {
			out[i] = round(float64(b.requests)/sparkStep.Seconds(), 100)
		}
	}
	return out
}

// usage remembers the processor time of an instance, to get its rate.
type usage struct {
	at     time.Time
	cpu    time.Duration
	millis int64
}

// next is the usage after a report; an unchanged figure is one that was not reported anew.
func (u usage) next(now time.Time, cpu functions.Duration) usage {
	if u.at.IsZero() || cpu.Std() < u.cpu {
		return usage{at: now, cpu: cpu.Std()}
	}
	if cpu.Std() == u.cpu && now.Sub(u.at) < 5*time.Second {
		return u
	}
	if d := now.Sub(u.at); d > 0 {
		return usage{now, cpu.Std(), int64(1000 * (cpu.Std() - u.cpu) / d)}
	}
	return u
}

func round(v, scale float64) float64 { return math.Round(v*scale) / scale }
