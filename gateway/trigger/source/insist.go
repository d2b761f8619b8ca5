package source

import (
	"context"
	"log/slog"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

// The waits between two tries of an event that the queue does not take now.
const (
	leastWait = 100 * time.Millisecond
	// MostWait is the longest of them.
	MostWait = 10 * time.Second
)

// Sink takes what a source makes.
type Sink interface {
	// Emit returns when the event is durable, or not wanted. The same event again is the same invocation.
	// Invocations with the same order, where it is not empty, run one after the other.
	Emit(ctx context.Context, ev *functions.Event, order string) error
	// Lag tells how much of what the source takes in is not handed over yet.
	Lag(n int64)
	// Reached tells that the source has got through to what it takes events from.
	Reached()
}

// Insist hands one event over, however long that takes, and calls again before each further try. It returns nil, or why the event can never be
// an invocation, or ctx's error.
func Insist(ctx context.Context, sink Sink, ev *functions.Event, order string, log *slog.Logger, again func()) error {
	if err := ev.Validate(); err != nil {
		return err
	}
	for wait := leastWait; ; wait = min(2*wait, MostWait) {
		err := sink.Emit(ctx, ev, order)
		switch {
		case err == nil:
			return nil
		case fault.KindOf(err) == fault.Invalid:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		}
		log.Warn("an event is not taken now, it is tried again", "event", ev.ID, "dur_ms", wait.Milliseconds(), "err", err)
		again()
		Sleep(ctx, wait)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}
