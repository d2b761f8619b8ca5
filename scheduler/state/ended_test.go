package state

import (
	"fmt"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
)

// The last instances that ended are remembered with their reason, and no more of them than the picture can carry.
func TestTheLastThatEndedAreRemembered(t *testing.T) {
	t.Parallel()
	s := New()
	long := make([]string, 3*endedLogs)
	long[len(long)-1] = "last"
	for i := range maxEnded + 5 {
		s.Remember(time.Unix(int64(i), 0), &Departure{Instance: Instance{Node: "nod_a", InstanceReport: bus.InstanceReport{
			Instance: functions.InstanceID(fmt.Sprint("ins_", i)), State: functions.InstanceFailed, Reason: "exited", Logs: long, Held: 2,
		}}})
	}
	if len(s.Ended) != maxEnded {
		t.Fatalf("%d are remembered", len(s.Ended))
	}
	first, last := s.Ended[0], s.Ended[maxEnded-1]
	if first.Instance != "ins_5" || last.Instance != functions.InstanceID(fmt.Sprint("ins_", maxEnded+4)) {
		t.Errorf("%s to %s", first.Instance, last.Instance)
	}
	if last.Reason != "exited" || last.Node != "nod_a" || last.Held != 0 || last.Since.Unix() != maxEnded+4 || len(last.Logs) != endedLogs || last.Logs[endedLogs-1] != "last" {
		t.Errorf("%+v", last)
	}
}
