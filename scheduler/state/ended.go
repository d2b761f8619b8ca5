package state

import (
	"time"

	"github.com/tatami-faas/tatami/internal/bus"
)

const (
	// maxEnded is how many instances that ended are remembered.
	maxEnded = 64
	// endedLogs is how many of its last lines are remembered of each: the picture of the state is sent whole.
	endedLogs = 10
)

// Remember keeps what is known of an instance that ended, for people who ask what became of it. Nothing is decided by it.
func (s *State) Remember(now time.Time, d *Departure) {
	e := bus.InstanceStatus{InstanceReport: d.InstanceReport, Node: d.Node, Placement: d.Placement()}
	e.Since, e.Held = now, 0
	e.Logs = e.Logs[max(0, len(e.Logs)-endedLogs):]
	if len(s.Ended) == maxEnded {
		s.Ended[0] = bus.InstanceStatus{}
		s.Ended = s.Ended[1:]
	}
	s.Ended = append(s.Ended, e)
}
