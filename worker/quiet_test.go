package worker_test

import (
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
)

// A stop for what has been quiet for a while is refused by an instance that was not, which shows when it was used last.
func TestStopOfWhatWasUsedJustNow(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	id := w.serving(revision())
	w.admit(id)
	w.worker.Release(w.cfg.Node, id)
	stop := func(quiet time.Duration) {
		w.command(bus.Command{Envelope: bus.Envelope{Instance: id}, Action: bus.ActionStop, Quiet: functions.Duration(quiet), Reason: "its room is needed"})
	}
	n := len(w.messages())
	stop(time.Hour)
	w.await(n, "a delta after a refused stop", func(m message) bool {
		return m.report != nil && !m.report.Full && m.report.Instances[0].State == functions.InstanceReady && !m.report.Instances[0].LastUsed.IsZero()
	})
	w.admit(id)
	w.worker.Release(w.cfg.Node, id)
	stop(time.Nanosecond)
	if r := w.state(id, functions.InstanceStopped); r.Reason != "its room is needed" {
		t.Errorf("report %+v", r)
	}
}
