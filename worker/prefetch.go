package worker

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/runtime/sandbox"
)

// prefetches is how many artifacts may wait to be made ready ahead; one more is dropped, and made ready by the first instance that needs it.
const prefetches = 64

// prefetch makes artifacts ready that instances are expected of, one after the other: those that are needed now must not wait for them.
type prefetch struct {
	driver    sandbox.Driver
	artifacts *artifacts
	log       *slog.Logger
	patience  time.Duration
	wanted    chan functions.Artifact
}

func newPrefetch(driver sandbox.Driver, a *artifacts, log *slog.Logger, patience time.Duration) *prefetch {
	return &prefetch{driver: driver, artifacts: a, log: log, patience: patience, wanted: make(chan functions.Artifact, prefetches)}
}

// run works until ctx ends.
func (p *prefetch) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case a := <-p.wanted:
			p.prepare(ctx, a)
		}
	}
}

func (p *prefetch) prepare(ctx context.Context, a functions.Artifact) {
	if slices.Contains(p.driver.Prepared(), a.Digest) {
		return
	}
	defer p.artifacts.hold(a.Digest)()
	ctx, cancel := context.WithTimeout(ctx, p.patience)
	defer cancel()
	begun := time.Now()
	if _, err := p.driver.Prepare(ctx, a); err != nil {
		p.log.Warn("an artifact was not made ready ahead", "artifact", a.Digest, "err", err)
		return
	}
	p.log.Info("artifact made ready ahead", "artifact", a.Digest, "dur_ms", time.Since(begun).Milliseconds())
}

// commandPrepare takes note of an artifact that instances are expected of here.
func (w *Worker) commandPrepare(c bus.Command) {
	if c.Revision == nil || c.Revision.Artifact.Digest == "" {
		w.log.Error("a command to prepare names no artifact")
		return
	}
	select {
	case w.prefetch.wanted <- c.Revision.Artifact:
	default:
		w.log.Debug("an artifact is not made ready ahead: too many are waiting", "artifact", c.Revision.Artifact.Digest)
	}
}
