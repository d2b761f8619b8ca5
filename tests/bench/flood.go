package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/queue"
	"github.com/tatami-faas/tatami/internal/bus"
)

// floodPlan is what one function's queue is measured beside.
type floodPlan struct {
	// flood is how many invocations of another function wait; pending how many are delayed.
	flood, pending int
	// turn is how long a function is measured beside another, or alone, at a time; failing is how long another one fails in all.
	turn, failing time.Duration
}

const (
	// probeRate is how many invocations a second the function gets that is measured, probeSleep how long it sleeps.
	probeRate  = 50
	probeSleep = 20 * time.Millisecond
	// floodSleep is how long an invocation of the flood sleeps: what is measured is the queue, and not how the processors are shared.
	floodSleep = 50 * time.Millisecond
	// failSleep is how long the failing function sleeps before it fails.
	failSleep = 20 * time.Millisecond
	// failRate is how many invocations a second the failing function gets.
	failRate = 200
	// letterReaders is how many dead letters are looked into at the same time.
	letterReaders = 8
	// aloneTurn is how long a function is measured alone at a time, at most.
	aloneTurn = 10 * time.Second
	// delayedRate is how many delayed invocations come due a second, for delayedFor.
	delayedRate = 500
	delayedFor  = 10 * time.Second
)

// floodMain measures what a flood, a function that fails, many delayed invocations and a writer on the same disk do to the queue.
func floodMain(args []string) int {
	flags := flag.NewFlagSet("bench flood", flag.ContinueOnError)
	out := flags.String("out", "out/bench.jsonl", "file to append a JSON line a figure to")
	flags.IntVar(&rounds, "rounds", rounds, "rounds; a figure of fewer than 5 is a trial")
	var p floodPlan
	flags.IntVar(&p.flood, "flood", 1_000_000, "invocations that wait for one function")
	flags.IntVar(&p.pending, "pending", 100_000, "invocations that wait for a time")
	flags.DurationVar(&p.turn, "turn", 8*time.Second, "how long a turn beside the flood takes")
	flags.DurationVar(&p.failing, "failing", time.Minute, "how long a function fails, in all turns together")
	only := flags.String("part", "", "only this part: delay, writer, flood or failing")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	rounds = max(rounds, 1)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	defer asServed()()
	begun := time.Now()
	var all []figure
	for _, part := range []struct {
		name string
		run  func(context.Context, floodPlan) ([]figure, error)
	}{{"delay", delayFigures}, {"writer", writingFigures}, {"flood", floodFigures}, {"failing", failingFigures}} {
		if *only != "" && *only != part.name {
			continue
		}
		figures, err := part.run(ctx, p)
		if err != nil {
			fmt.Fprintf(os.Stderr, "bench: failed: %v\n", err)
			return 1
		}
		all = append(all, figures...)
	}
	if err := writeFigures(*out, all); err != nil {
		fmt.Fprintf(os.Stderr, "bench: failed: %v\n", err)
		return 1
	}
	printFigures(all)
	fmt.Printf("bench: %d figures in %s, appended to %s\n", len(all), time.Since(begun).Round(time.Second), *out)
	return 0
}

// withCrowd runs fn with a queue for the functions on a store of its own.
func withCrowd(ctx context.Context, c crowd, fn func(b *bus.Bus, q *queue.Queue) error) error {
	// Retries have no budget to speak of: it would spread the failures over a long time.
	return withQueueOver(ctx, queue.Config{Drain: time.Second, RetryFloor: 10_000}, c, fn)
}

// newProbe makes the function that is measured; its times are from when an invocation should have come to when the function has slept.
func newProbe() (*sleeper, *samples) {
	got := &samples{}
	s := newSleeper("probe", probeSleep, http.StatusOK)
	s.done = func(r *http.Request) { got.add(since(r)) }
	s.door.set(true)
	return s, got
}

// feed hands invocations over at a rate for a time, and returns how many.
func feed(ctx context.Context, q *queue.Queue, ref functions.Ref, rate int, length time.Duration, note func(functions.InvocationID)) (int, error) {
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	n := int(length.Seconds() * float64(rate))
	begin := time.Now()
	for i := range n {
		at := begin.Add(time.Duration(i) * time.Second / time.Duration(rate))
		time.Sleep(time.Until(at))
		wg.Go(func() {
			id, err := q.Accept(ctx, queue.Request{Ref: ref, Body: benchBody(), Header: dueHeader(at)})
			if err != nil {
				failed.Store(&err)
				return
			}
			if note != nil {
				note(id)
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return n, *err
	}
	return n, nil
}

// probeTurn is the p99 of the function's times over a turn.
func probeTurn(ctx context.Context, q *queue.Queue, s *sleeper, got *samples, length time.Duration) (float64, error) {
	n, err := feed(ctx, q, s.ref, probeRate, length, nil)
	if err != nil {
		return 0, err
	}
	times, err := got.take(ctx, n)
	slices.Sort(times)
	return quantile(times, 0.99), err
}

// besides runs rounds of turns in which a function is alone in a queue, and beside another one in another queue, which disturb starts and stops.
func besides(ctx context.Context, other *sleeper, turn time.Duration, metric string, prepare func(q *queue.Queue) error, disturb func(q *queue.Queue, on bool), end func(q *queue.Queue) error) ([]figure, error) {
	alone, aloneTimes := newProbe()
	crowded, besideTimes := newProbe()
	var quiet, loud []float64
	err := withCrowd(ctx, newCrowd(alone), func(_ *bus.Bus, calm *queue.Queue) error {
		return withCrowd(ctx, newCrowd(crowded, other), func(_ *bus.Bus, q *queue.Queue) error {
			if err := prepare(q); err != nil {
				return err
			}
			turns := []func() error{
				func() error {
					v, err := probeTurn(ctx, calm, alone, aloneTimes, min(turn, aloneTurn))
					quiet = append(quiet, v)
					return err
				},
				func() error {
					disturb(q, true)
					defer disturb(q, false)
					v, err := probeTurn(ctx, q, crowded, besideTimes, turn)
					loud = append(loud, v)
					return err
				},
			}
			for range rounds {
				for _, t := range turns {
					if err := t(); err != nil {
						return err
					}
				}
				slices.Reverse(turns)
			}
			return end(q)
		})
	})
	n := rounds * int(turn.Seconds()*probeRate)
	return []figure{beside("queue", metric, "ms", median(loud), "alone", median(quiet), n)}, err
}

// floodFigures measures a function beside another one with a flood of invocations.
func floodFigures(ctx context.Context, p floodPlan) ([]figure, error) {
	fmt.Printf("flood: %d invocations for one function…\n", p.flood)
	flood := newSleeper("flood", floodSleep, http.StatusOK)
	var ran atomic.Int64
	flood.done = func(*http.Request) { ran.Add(1) }
	return besides(ctx, flood, p.turn, "flood_other_p99_ms", func(q *queue.Queue) error {
		_, _, err := hammer(acceptCallers, p.flood, func() error {
			_, err := q.Accept(ctx, queue.Request{Ref: flood.ref, Body: benchBody()})
			return err
		})
		return err
	}, func(_ *queue.Queue, on bool) { flood.door.set(on) }, func(q *queue.Queue) error {
		d := q.Depth(flood.ref)
		fmt.Printf("flood: %d of it ran meanwhile, %d wait still\n", ran.Load(), d.Pending)
		if d.Pending == 0 {
			return fmt.Errorf("the flood was over before the turns were: give more with -flood")
		}
		return nil
	})
}

// failingFigures measures a function beside another one that always fails, whose every invocation must be a dead letter in the end.
func failingFigures(ctx context.Context, p floodPlan) ([]figure, error) {
	fmt.Printf("flood: a function that fails for %s…\n", p.failing)
	failing := newSleeper("failing", failSleep, http.StatusServiceUnavailable)
	var mu sync.Mutex
	var ids []functions.InvocationID
	var feeding sync.WaitGroup
	var stop context.CancelFunc
	return besides(ctx, failing, p.failing/time.Duration(rounds), "failing_other_p99_ms", func(*queue.Queue) error { return nil },
		func(q *queue.Queue, on bool) {
			failing.door.set(on)
			if !on {
				stop()
				feeding.Wait()
				return
			}
			var fctx context.Context
			fctx, stop = context.WithCancel(ctx)
			feeding.Go(func() {
				for fctx.Err() == nil {
					// What is refused fails the check of the dead letters' number below only if it was accepted.
					_, _ = feed(ctx, q, failing.ref, failRate, time.Second, func(id functions.InvocationID) {
						mu.Lock()
						ids = append(ids, id)
						mu.Unlock()
					})
				}
			})
		}, func(q *queue.Queue) error {
			failing.door.set(true)
			return allDead(ctx, q, failing.ref, ids)
		})
}

// tellsAll checks that a dead letter has the payload, the error and each of the attempts.
func tellsAll(letter *functions.DeadLetter) error {
	inv := letter.Invocation
	if !bytes.Equal(inv.Body, benchBody()) || letter.Reason == "" || len(inv.History) != functions.DefaultRetries+1 {
		return fmt.Errorf("%d bytes, %q, %d attempts", len(inv.Body), letter.Reason, len(inv.History))
	}
	for i, a := range inv.History {
		if a.Number != i+1 || a.Status != http.StatusServiceUnavailable || a.Started.IsZero() || a.Ended.Before(a.Started) {
			return fmt.Errorf("attempt %d is %+v", i+1, a)
		}
	}
	return nil
}

// countsDead waits until the queue counts so many dead letters of a function: it counts anew once a second.
func countsDead(ctx context.Context, q *queue.Queue, ref functions.Ref, want int) error {
	got := 0
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		if got = q.Depth(ref).Dead; got == want {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	return fmt.Errorf("%d dead letters are counted, %d were handed over", got, want)
}

// allDead waits until a function has nothing left to do, and checks that every invocation of it is a dead letter with what is needed to look into it.
func allDead(ctx context.Context, q *queue.Queue, ref functions.Ref, ids []functions.InvocationID) error {
	for deadline := time.Now().Add(3 * time.Minute); ; {
		d := q.Depth(ref)
		if d.Pending+d.Running+d.Scheduled == 0 {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not all have failed for good after three minutes: %+v", d)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	distinct := slices.Compact(slices.Sorted(slices.Values(ids)))
	if len(distinct) < len(ids) {
		return fmt.Errorf("%d ids for %d invocations", len(distinct), len(ids))
	}
	var next atomic.Int64
	if _, _, err := hammer(letterReaders, len(ids), func() error {
		id := ids[next.Add(1)-1]
		letter, err := q.ShowDead(ctx, id)
		if err != nil {
			return fmt.Errorf("%s is no dead letter: %w", id, err)
		}
		if letter.Invocation.ID != id {
			return fmt.Errorf("the dead letter of %s is that of %s", id, letter.Invocation.ID)
		}
		if err := tellsAll(&letter); err != nil {
			return fmt.Errorf("the dead letter of %s: %w", id, err)
		}
		return nil
	}); err != nil {
		return err
	}
	if err := countsDead(ctx, q, ref, len(ids)); err != nil {
		return err
	}
	fmt.Printf("flood: each of %d is a dead letter with its payload, error and attempts\n", len(ids))
	return nil
}

// delayFigures measures how late delayed invocations begin while many wait, beside timers of this process at the same times.
func delayFigures(ctx context.Context, p floodPlan) ([]figure, error) {
	fmt.Printf("flood: delayed invocations while %d wait…\n", p.pending)
	var late, timers []float64
	n := int(delayedFor.Seconds() * delayedRate)
	for range rounds {
		got, idle := &samples{}, &samples{}
		s := newSleeper("delayed", 0, http.StatusOK)
		s.begun = func(r *http.Request) { got.add(since(r)) }
		s.door.set(true)
		err := withCrowd(ctx, newCrowd(s), func(_ *bus.Bus, q *queue.Queue) error {
			far := time.Now().Add(time.Hour)
			if _, _, err := hammer(acceptCallers, p.pending, func() error {
				_, err := q.Accept(ctx, queue.Request{Ref: s.ref, Body: benchBody(), NotBefore: far})
				return err
			}); err != nil {
				return err
			}
			var next atomic.Int64
			begin := time.Now().Add(2 * time.Second)
			if _, _, err := hammer(acceptCallers, n, func() error {
				at := begin.Add(time.Duration(next.Add(1)) * time.Second / delayedRate)
				time.AfterFunc(time.Until(at), func() { idle.add(time.Since(at)) })
				_, err := q.Accept(ctx, queue.Request{Ref: s.ref, Body: benchBody(), NotBefore: at, Header: dueHeader(at)})
				return err
			}); err != nil {
				return err
			}
			times, err := got.take(ctx, n)
			if err != nil {
				return err
			}
			base, err := idle.take(ctx, n)
			slices.Sort(times)
			slices.Sort(base)
			late, timers = append(late, quantile(times, 0.99)), append(timers, quantile(base, 0.99))
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return []figure{beside("queue", "delay_p99_ms", "ms", median(late), "timer", median(timers), rounds*n)}, nil
}
