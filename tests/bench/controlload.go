package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// answerWriter takes an answer and keeps its status.
type answerWriter struct {
	header http.Header
	status int
}

func (a *answerWriter) Header() http.Header         { return a.header }
func (a *answerWriter) WriteHeader(status int)      { a.status = status }
func (a *answerWriter) Write(b []byte) (int, error) { return len(b), nil }

// call is one request to the function through the gateway's data path.
func (w *controlWorld) call(ctx context.Context, fn int) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://bench/", nil)
	if err != nil {
		return err
	}
	r.RemoteAddr = "127.0.0.1:1"
	a := answerWriter{header: http.Header{}}
	w.invoker.ServeFunction(&a, r, w.refs[fn], "/")
	if a.status != http.StatusOK {
		return fmt.Errorf("%s answered %d (%s)", w.refs[fn], a.status, a.header.Get("Tatami-Error"))
	}
	return nil
}

// tally gathers the latencies of a loop.
type tally struct {
	took   []time.Duration
	failed atomic.Pointer[error]
	begun  time.Time
	cpu    time.Duration
	// collections is how often the collector had run before.
	collections int
}

func newTally(n int) *tally {
	return &tally{took: make([]time.Duration, n), begun: time.Now(), cpu: processTime(), collections: collections()}
}

func (t *tally) note(i int, since time.Time, err error) {
	t.took[i] = time.Since(since)
	if err != nil {
		t.failed.CompareAndSwap(nil, &err)
	}
}

func (t *tally) end() (outcome, error) {
	o := outcome{took: t.took, wall: time.Since(t.begun), cpu: processTime() - t.cpu, collections: collections() - t.collections}
	o.sort()
	if err := t.failed.Load(); err != nil {
		return o, *err
	}
	return o, nil
}

// openLoop starts functions at times that are drawn ahead, whatever becomes of those before; latency counts from the time drawn. What is added is all
// of it but the time that the call's own sandbox took, from the command's arrival to its readiness, by the clock of its worker: a timer that fires
// late makes a slow sandbox, and is no scheduling. All else counts, the lateness of the generator too.
func (w *controlWorld) openLoop(ctx context.Context, rate float64, length time.Duration) (o outcome, err error) {
	rng := rand.New(rand.NewPCG(1, 1))
	var due []time.Duration
	for at := 0.0; len(due) < len(w.refs); {
		at += rng.ExpFloat64() / rate
		if at > length.Seconds() {
			break
		}
		due = append(due, time.Duration(at*float64(time.Second)))
	}
	order := rng.Perm(len(w.refs))
	noise := w.watchTimers(ctx)
	defer func() { o.late = noise() }()
	t, away, all := newTally(len(due)), w.workers.cpu(), machineTime()
	added := make([]time.Duration, len(due))
	var steps [len(o.steps)][]time.Duration
	for s := range steps {
		steps[s] = make([]time.Duration, len(due))
	}
	var calls sync.WaitGroup
	for i, at := range due {
		due := t.begun.Add(at)
		if wait := time.Until(due); wait > 0 {
			time.Sleep(wait)
		}
		calls.Go(func() {
			called := time.Now()
			t.note(i, due, w.call(ctx, order[i]))
			m := &w.workers.noted().marks[order[i]]
			asked, commanded, ready := timeIn(&m.asked), timeIn(&m.commanded), timeIn(&m.ready)
			added[i] = t.took[i] - ready.Sub(commanded)
			for s, took := range [len(steps)]time.Duration{
				called.Sub(due), asked.Sub(called), commanded.Sub(asked), ready.Sub(commanded) - sandboxTime, due.Add(t.took[i]).Sub(ready),
			} {
				steps[s][i] = took
			}
		})
	}
	calls.Wait()
	o, err = t.end()
	for s := range steps {
		slices.Sort(steps[s])
	}
	slices.Sort(added)
	o.added, o.steps, o.away = added, steps, w.workers.cpu()-away
	o.others = machineTime() - all - o.cpu - o.away
	o.drawn = float64(len(due)) / due[len(due)-1].Seconds()
	return o, err
}

// collected is an open loop in whose midst the garbage collector runs.
func (w *controlWorld) collected(ctx context.Context, p controlPlan) (o outcome, err error) {
	if err := w.settle(ctx); err != nil {
		return o, err
	}
	runtime.GC()
	before := heapNow()
	var midst sync.WaitGroup
	midst.Go(func() {
		select {
		case <-time.After(p.length / 2):
			runtime.GC()
		case <-ctx.Done():
		}
	})
	o, err = w.openLoop(ctx, p.rate, p.length)
	midst.Wait()
	if made := heapNow().allocated - before.allocated; made > 0 {
		o.until = time.Duration(float64(o.wall) * float64(before.goal-before.live) / float64(made))
	}
	return o, err
}

// timerEvery is the time between two timers whose lateness is watched.
const timerEvery = 2 * time.Millisecond

// watchTimers begins to set timers of a sandbox's time that do nothing, until the function returned is called. It returns how late each was: what the
// process, the Go runtime and the machine add to anything that waits so long.
func (w *controlWorld) watchTimers(ctx context.Context) (end func() []time.Duration) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan []time.Duration)
	go func() {
		var mu sync.Mutex
		var late []time.Duration
		var pending sync.WaitGroup
		tick := time.NewTicker(timerEvery)
		defer tick.Stop()
		for ctx.Err() == nil {
			begun := time.Now()
			pending.Add(1)
			time.AfterFunc(sandboxTime, func() {
				defer pending.Done()
				mu.Lock()
				defer mu.Unlock()
				late = append(late, time.Since(begun)-sandboxTime)
			})
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
		pending.Wait()
		slices.Sort(late)
		done <- late
	}()
	return func() []time.Duration {
		cancel()
		return <-done
	}
}

// closedLoop has clients each of which starts a further function when its last one answered, until each function was started once.
func (w *controlWorld) closedLoop(ctx context.Context, functions, clients int) (outcome, error) {
	t, away := newTally(functions), w.workers.cpu()
	var next atomic.Int64
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= functions || ctx.Err() != nil {
					return
				}
				t.note(i, time.Now(), w.call(ctx, i))
			}
		})
	}
	all.Wait()
	o, err := t.end()
	o.away = w.workers.cpu() - away
	return o, err
}
