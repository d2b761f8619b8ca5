package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

const (
	// sustainRate is how many calls the open loop makes a second, but no more than leave each function restTime between two calls: it must be
	// at zero again. Another one, of mostTime, offers mostRate, to see how much of that is sustained.
	sustainRate = 50
	mostRate    = 100
	mostTime    = 20 * time.Second
	restTime    = 3 * time.Second
	// poolLooks is how often the pool is looked at within a second at both ends of the window: it breathes.
	poolLooks = 10
)

// sustained is what an open loop of calls to functions at zero brought.
type sustained struct {
	perSecond, cpuMs float64
	cold             int
	before, after    float64
	p50, p99         float64
	warm, refused    int
	paths            map[string]int
	// offered is how many calls a second there were.
	offered float64
}

// openLoop calls one function after the other at a fixed rate, whatever the answers do.
type openLoop struct {
	server *server
	begun  time.Time
	// every is the time between two calls.
	every time.Duration

	mu sync.Mutex
	// from and to bound the window within which answers count.
	from, to time.Time
	calls    int
	s        sustained
	took     []float64
}

// sustain calls one function after the other, rate of them a second, and counts the starts within a window that begins when starts, removals and
// the pool's filling have come into step.
func (f *coldServer) sustain(ctx context.Context, rate int, window time.Duration) (s sustained, err error) {
	if _, err := f.settle(ctx); err != nil {
		return s, err
	}
	l := &openLoop{server: f.server, begun: time.Now(), s: sustained{paths: map[string]int{}}}
	l.every = max(time.Second/time.Duration(rate), restTime/time.Duration(coldFleet))
	l.from = l.begun.Add(min(10*time.Second, window))
	l.to = l.from.Add(window)
	var all sync.WaitGroup
	all.Go(func() { l.run(ctx) })
	defer all.Wait()
	time.Sleep(time.Until(l.from.Add(-time.Second)))
	if l.s.before, err = f.waiting(ctx); err != nil {
		return s, err
	}
	cpu := busyTime()
	time.Sleep(time.Until(l.to.Add(-time.Second)))
	if l.s.after, err = f.waiting(ctx); err != nil {
		return s, err
	}
	cpu = busyTime() - cpu
	all.Wait()
	return l.result(cpu), ctx.Err()
}

// run returns when the last answer has come.
func (l *openLoop) run(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	for n := 0; ctx.Err() == nil; n++ {
		at := l.begun.Add(time.Duration(n) * l.every)
		if at.After(l.to) {
			return
		}
		time.Sleep(time.Until(at))
		all.Go(func() { l.call(ctx, fleetName(n%coldFleet)) })
	}
}

func (l *openLoop) call(ctx context.Context, name string) {
	begun := time.Now()
	d, header, err := l.server.get(ctx, "/fn/"+name)
	ended := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !begun.Before(l.from) && begun.Before(l.to) {
		l.calls++
	}
	if ended.Before(l.from) || ended.After(l.to) {
		return
	}
	switch path := pathOf(header); {
	case err != nil:
		if l.s.refused++; l.s.refused == 1 {
			fmt.Printf("  cold: open loop: the first call that failed: %v\n", err)
		}
	case path == "":
		l.s.warm++
	default:
		l.s.cold++
		l.s.paths[path]++
		l.took = append(l.took, ms(d))
	}
}

// result is what came of it. What the pool lost was not sustained.
func (l *openLoop) result(cpu time.Duration) sustained {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.s
	made, seconds := max(0, float64(s.cold)-max(0, s.before-s.after)), l.to.Sub(l.from).Seconds()
	s.perSecond, s.offered = made/seconds, float64(l.calls)/seconds
	s.cpuMs = ms(cpu) / max(1, made)
	slices.Sort(l.took)
	s.p50, s.p99 = quantile(l.took, 0.5), quantile(l.took, 0.99)
	fmt.Printf("  cold: open loop at %.0f/s: %d offered, %d cold (paths %v), %d warm, %d refused, p50 %.1f ms, p99 %.1f ms, pool %.0f -> %.0f, %.1f ms CPU a start\n",
		1/l.every.Seconds(), l.calls, s.cold, s.paths, s.warm, s.refused, s.p50, s.p99, s.before, s.after, s.cpuMs)
	return s
}

// waiting is how many sandboxes wait in the pool, in the middle of a second's looks.
func (f *coldServer) waiting(ctx context.Context) (float64, error) {
	var seen []float64
	for range poolLooks {
		m, err := f.server.metrics(ctx)
		if err != nil {
			return 0, err
		}
		seen = append(seen, m[`tatami_sandbox_pool{state="waiting"}`])
		time.Sleep(time.Second / poolLooks)
	}
	return median(seen), nil
}
