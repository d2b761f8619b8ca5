package trigger

import (
	"context"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
)

// eventSink is what a source that takes events in needs of the hub, for one trigger.
type eventSink struct {
	h *Hub
	e *entry
}

// Emit makes an invocation of an event that the filters take. Those of one trigger with the same order run one after the other; "" is none.
func (s *eventSink) Emit(ctx context.Context, ev *functions.Event, order string) error {
	if !s.e.trigger.Takes(ev) {
		s.e.tally.filtered()
		return nil
	}
	if order != "" {
		order = s.e.trigger.Name + "/" + order
	}
	_, err := s.h.deliver(ctx, s.e, ev, order)
	return err
}

// Reached notes that what failed before does no longer.
func (s *eventSink) Reached() { s.e.tally.note(func(c *v1.TriggerStatus) { c.Reason = "" }) }

// Lag notes how much waits to be taken in.
func (s *eventSink) Lag(n int64) { s.e.tally.note(func(c *v1.TriggerStatus) { c.Lag = &n }) }
