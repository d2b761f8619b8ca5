package worker_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/worker"
)

// TestPrefetch: an artifact is made ready before there is an instance, told with the next report, and one that cannot be made ready holds
// nothing up but for its time.
func TestPrefetch(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *worker.Config) { c.PrepareTimeout = 50 * time.Millisecond })
	endless, missing, wanted := revision(), revision(), revision()
	endless.Artifact = functions.Artifact{Digest: "sha256:" + strings.Repeat("1", 64), Name: "endless"}
	missing.Artifact = functions.Artifact{Digest: "sha256:" + strings.Repeat("2", 64), Name: "missing"}
	for _, rev := range []*functions.Revision{endless, missing, nil, wanted, wanted} {
		w.command(bus.Command{Action: bus.ActionPrepare, Revision: rev})
	}
	w.await(0, "the artifact is reported", func(m message) bool {
		return m.report != nil && slices.Contains(m.report.State.Artifacts, wanted.Artifact.Digest)
	})
	if got := w.driver.Prepared(); !slices.Equal(got, []string{wanted.Artifact.Digest}) {
		t.Errorf("prepared %q", got)
	}
	if r := w.state(w.serving(wanted), functions.InstanceReady); r.Phases.Prepare != 0 {
		t.Errorf("it was prepared again: %+v", r.Phases)
	}
}
