package worker

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/tatami-faas/tatami/runtime/sandbox"
)

// artifacts bounds what is kept unpacked on the node: what a revision names that can still get the traffic, and what an instance here is
// made of. Anything else is forgotten once it has been of no use for a while.
type artifacts struct {
	driver sandbox.Driver
	bus    Bus
	log    *slog.Logger
	grace  time.Duration

	mu sync.Mutex
	// held counts the instances here that are made, or being made, of an artifact.
	held map[string]int
	// idle is since when nobody has named or held an artifact.
	idle map[string]time.Time
}

func newArtifacts(driver sandbox.Driver, b Bus, log *slog.Logger, grace time.Duration) *artifacts {
	return &artifacts{driver: driver, bus: b, log: log, grace: grace, held: map[string]int{}, idle: map[string]time.Time{}}
}

// hold keeps the artifact from being forgotten until the function returned is called. It waits where it is being forgotten just now.
func (a *artifacts) hold(digest string) (release func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.held[digest]++
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.held[digest]--; a.held[digest] == 0 {
			delete(a.held, digest)
		}
	}
}

// run forgets what is of no use until ctx ends.
func (a *artifacts) run(ctx context.Context) error {
	tick := time.NewTicker(max(a.grace/10, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			a.look(ctx, now)
		}
	}
}

// look forgets what has been of no use for the grace. What only makes starts quicker goes before.
func (a *artifacts) look(ctx context.Context, now time.Time) {
	prepared := a.driver.Prepared()
	if len(prepared) == 0 {
		return
	}
	named, err := a.bus.Named(ctx, prepared)
	if err != nil {
		// Nothing is forgotten as long as it is not known what is needed.
		a.log.Debug("the needed artifacts are not known", "err", err)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for digest := range a.idle {
		if !slices.Contains(prepared, digest) {
			delete(a.idle, digest)
		}
	}
	for _, digest := range prepared {
		since, known := a.idle[digest]
		switch {
		case slices.Contains(named, digest) || a.held[digest] > 0:
			delete(a.idle, digest)
		case !known:
			a.idle[digest] = now
			a.driver.Release(digest)
		case now.Sub(since) >= a.grace:
			// With the lock held: an instance that is to be made of it waits, and then prepares it anew.
			if err := a.driver.Forget(ctx, digest); err != nil {
				a.log.Warn("an artifact that nobody needs is not removed yet", "artifact", digest, "err", err)
				continue
			}
			delete(a.idle, digest)
			a.log.Info("artifact removed: no function needs it", "artifact", digest)
		}
	}
}
