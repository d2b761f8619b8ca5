package scheduler

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/scheduler/reconcile"
)

// ordered is a scheduler without a bus, and what it has taken.
type ordered struct {
	*Scheduler
	mu    sync.Mutex
	taken []string
	all   chan string
}

func newOrdered() *ordered {
	o := &ordered{all: make(chan string, 16)}
	o.Scheduler = &Scheduler{
		cfg: Config{}.withDefaults(), log: slog.New(slog.DiscardHandler), core: reconcile.New(reconcile.Config{}, functions.NewInstanceID),
		in: make(chan input, inputs), demand: make(chan input, inputs), sooner: make(chan struct{}, 1),
	}
	o.begin()
	return o
}

// named is an input that notes that it was taken.
func (o *ordered) named(name string) input {
	return func(time.Time) []reconcile.Effect {
		o.mu.Lock()
		o.taken = append(o.taken, name)
		o.mu.Unlock()
		o.all <- name
		return nil
	}
}

func (o *ordered) want(t *testing.T, names ...string) {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	if !slices.Equal(o.taken, names) {
		t.Fatalf("taken are %q, want %q", o.taken, names)
	}
}

// An input is taken where it comes in if nothing else is being decided; else the loop takes it, and what comes after it does not overtake it.
func TestInputsKeepTheirOrder(t *testing.T) {
	t.Parallel()
	o := newOrdered()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	o.offer(ctx, o.named("first"))
	o.want(t, "first")

	o.Scheduler.mu.Lock()
	o.offer(ctx, o.named("beside another one"))
	o.Scheduler.mu.Unlock()
	o.offer(ctx, o.named("after it"))
	o.want(t, "first")

	var loop sync.WaitGroup
	loop.Go(func() { o.loop(ctx) })
	defer loop.Wait()
	defer cancel()
	for range 3 {
		select {
		case <-o.all:
		case <-time.After(time.Minute):
			t.Fatal("the loop does not take what waits")
		}
	}
	o.want(t, "first", "beside another one", "after it")
}

// An input after which something is due before the loop would wake has the loop look at the time.
func TestAnInputWakesTheLoop(t *testing.T) {
	t.Parallel()
	o := newOrdered()
	o.wake = o.ticked.Add(time.Hour)
	o.offer(context.Background(), o.named("any"))
	if want := o.ticked.Add(o.interval()); len(o.sooner) != 1 || !o.wake.Equal(want) {
		t.Fatalf("the loop wakes at %s, want %s, and is told %d times", o.wake, want, len(o.sooner))
	}
	<-o.sooner
	o.offer(context.Background(), o.named("another"))
	if len(o.sooner) != 0 {
		t.Error("the loop is woken although it wakes in time")
	}
}

// Nothing is taken any more once the scheduler has ended: somebody else may lead.
func TestNothingIsTakenAfterTheEnd(t *testing.T) {
	t.Parallel()
	o := newOrdered()
	o.end()
	o.offer(context.Background(), o.named("late"))
	o.want(t)
	if o.Hear(nil) {
		t.Error("a demand was taken after the end")
	}
}
