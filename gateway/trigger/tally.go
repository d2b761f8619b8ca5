package trigger

import (
	"sync"
	"time"

	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/gateway/trigger/cron"
)

// tally counts what became of a trigger's events since this process started.
type tally struct {
	mu     sync.Mutex
	counts v1.TriggerStatus
}

func (t *tally) note(f func(c *v1.TriggerStatus)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f(&t.counts)
}

// filtered counts an event that the filters did not take.
func (t *tally) filtered() { t.note(func(c *v1.TriggerStatus) { c.Filtered++ }) }

// accepted counts an event that became an invocation.
func (t *tally) accepted() {
	t.note(func(c *v1.TriggerStatus) {
		c.Accepted++
		c.Last, c.Reason = time.Now().UTC(), ""
	})
}

// refused counts an event that the queue did not take.
func (t *tally) refused(err error) {
	t.note(func(c *v1.TriggerStatus) {
		c.Refused++
		c.Reason = err.Error()
	})
}

// broke notes why the source ended by itself.
func (t *tally) broke(err error) {
	t.note(func(c *v1.TriggerStatus) {
		c.Reason = "the source ended by itself"
		if err != nil {
			c.Reason = err.Error()
		}
	})
}

// The states of a trigger.
const (
	stateActive  = "active"
	statePaused  = "paused"
	stateFailing = "failing"
)

func (e *entry) status() v1.TriggerStatus {
	e.tally.mu.Lock()
	s := e.tally.counts
	e.tally.mu.Unlock()
	if e.trigger.Cron != nil && !e.trigger.Paused {
		if schedule, err := cron.Parse(e.trigger.Cron); err == nil {
			s.Next = schedule.Next(time.Now())
		}
	}
	switch {
	case e.trigger.Paused:
		s.State, s.Reason = statePaused, ""
	case s.Reason != "":
		s.State = stateFailing
	default:
		s.State = stateActive
	}
	return s
}
