package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"
)

// part is a long-running piece of the process: run blocks until its context ends.
type part struct {
	name string
	run  func(context.Context) error
	// ready is closed once the part serves; nil: at once.
	ready func() <-chan struct{}
}

// ended is a part's end.
type ended struct {
	name string
	err  error
}

// supervise starts the parts in their order, each once the one before is ready, and calls up when all are. When ctx ends, or a part
// does, it ends the parts in reverse order, each once the one after it has returned: what feeds is stopped before what is fed.
func supervise(ctx context.Context, log *slog.Logger, parts []part, up func()) error {
	type running struct {
		part
		cancel context.CancelFunc
		done   chan struct{}
	}
	ends := make(chan ended, len(parts))
	var started []running
	start := func(p part) running {
		// A part's end is asked for in turn, so its context does not follow ctx.
		pctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		r := running{part: p, cancel: cancel, done: make(chan struct{})}
		go func() {
			defer close(r.done)
			ends <- ended{p.name, p.run(pctx)}
		}()
		return r
	}

	var first *ended
	for _, p := range parts {
		r := start(p)
		started = append(started, r)
		if p.ready == nil {
			continue
		}
		select {
		case <-p.ready():
			continue
		case e := <-ends:
			first = &e
		case <-ctx.Done():
		}
		break
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

func endError(e ended) error {
	if e.err == nil {
		return fmt.Errorf("%s ended without being asked to", e.name)
	}
	return fmt.Errorf("%s: %w", e.name, e.err)
}
