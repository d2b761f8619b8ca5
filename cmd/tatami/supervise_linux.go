package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/tatami-faas/tatami/internal/fault"
)

// part is a long-running piece of the process: run blocks until its context ends.
type part struct {
	name string
	run  func(context.Context) error
	// ready is closed once the part serves; nil: at once.
	ready func() <-chan struct{}
	// within bounds the wait for that; zero: as long as it takes.
	within time.Duration
}

// ended is a part's end.
type ended struct {
	name string
	err  error
}

// supervise starts the parts in their order, each once the one before is ready, and calls up when all are. When ctx ends, or a part
// does, it ends the parts in reverse order, each once the one after it has returned: what feeds is stopped before what is fed.
func supervise(ctx context.Context, log *slog.Logger, parts []part, up func()) error {
	ends := make(chan ended, len(parts))
	var started []running
	var first *ended
	for _, p := range parts {
		begun := time.Now()
		started = append(started, start(ctx, p, ends))
		var ok bool
		if first, ok = awaitReady(ctx, p, ends); !ok {
			break
		}
		log.Debug("part ready", "part", p.name, "dur_ms", time.Since(begun).Milliseconds())
	}
	if first == nil && ctx.Err() == nil {
		up()
		select {
		case e := <-ends:
			first = &e
		case <-ctx.Done():
		}
	}

	var failed error
	if first != nil {
		failed = endError(*first)
		log.Error("a part ended by itself; stopping", "part", first.name, "err", first.err)
	}
	for i := len(started) - 1; i >= 0; i-- {
		r := started[i]
		begun := time.Now()
		r.cancel()
		<-r.done
		log.Debug("part stopped", "part", r.name, "dur_ms", time.Since(begun).Milliseconds())
	}
	for range len(ends) {
		if e := <-ends; e.err != nil && failed == nil {
			failed = endError(e)
		}
	}
	return failed
}

// running is a part that was started.
type running struct {
	part
	cancel context.CancelFunc
	done   chan struct{}
}

func start(ctx context.Context, p part, ends chan<- ended) running {
	// A part's end is asked for in turn, so its context does not follow ctx.
	pctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r := running{part: p, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		ends <- ended{p.name, p.run(pctx)}
	}()
	return r
}

// awaitReady returns true once the part is ready; false when ctx ends before, or, with what ended, when a part does or this one takes too long.
func awaitReady(ctx context.Context, p part, ends <-chan ended) (*ended, bool) {
	if p.ready == nil {
		return nil, ctx.Err() == nil
	}
	var over <-chan time.Time
	if p.within > 0 {
		timer := time.NewTimer(p.within)
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-p.ready():
		return nil, true
	case e := <-ends:
		return &e, false
	case <-over:
		return &ended{p.name, fault.New(fault.CodeUnavailable, "it was not ready within %s", p.within)}, false
	case <-ctx.Done():
		return nil, false
	}
}

func endError(e ended) error {
	if e.err == nil {
		return fmt.Errorf("%s ended without being asked to", e.name)
	}
	return fmt.Errorf("%s: %w", e.name, e.err)
}
