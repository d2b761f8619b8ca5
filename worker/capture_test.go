package worker_test

import (
	"slices"
	"testing"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
)

// TestOutputThatIsAskedFor: what an instance wrote while it started is told as soon as it serves, whenever it is captured.
func TestOutputThatIsAskedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.serving(revision("print:first"))
	var lines []string
	err := w.worker.Logs(t.Context(), bus.LogQuery{Ref: functions.Ref{Namespace: "shop", Name: "cart"}}, func(l bus.LogLine) error {
		lines = append(lines, l.Text)
		return nil
	})
	if err != nil || !slices.Equal(lines, []string{"first"}) {
		t.Errorf("%q, %v", lines, err)
	}
}
