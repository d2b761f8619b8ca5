package trigger

import (
	"context"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// cronSink is what a cron source needs of the hub, for one trigger.
type cronSink struct {
	h *Hub
	e *entry
}

// Emit makes an invocation of a firing.
func (s *cronSink) Emit(ctx context.Context, ev *functions.Event) (functions.InvocationID, error) {
	return s.h.deliver(ctx, s.e, ev, "")
}

// Ended reports whether an invocation is over.
func (s *cronSink) Ended(ctx context.Context, id functions.InvocationID) (bool, error) {
	st, err := s.h.queue.Lookup(ctx, id, 0)
	if fault.KindOf(err) == fault.NotFound {
		return true, nil
	}
	return err == nil && st.State.Terminal(), err
}

// Cancel asks for the end of an invocation.
func (s *cronSink) Cancel(ctx context.Context, id functions.InvocationID) error {
	_, err := s.h.queue.Cancel(ctx, id)
	return err
}

// Load reads the trigger's state.
func (s *cronSink) Load(ctx context.Context) (functions.TriggerState, error) {
	state, _, err := s.h.bus.TriggerStates().Get(ctx, s.key())
	if fault.KindOf(err) == fault.NotFound {
		err = nil
	}
	return state, err
}

// Save writes the trigger's state. A crash may take it back: what was fired since fires again then, as the same events.
func (s *cronSink) Save(ctx context.Context, state functions.TriggerState) error {
	state.Schema, state.Namespace, state.Name = functions.Schema, s.e.trigger.Namespace, s.e.trigger.Name
	_, err := s.h.bus.TriggerStates().Put(ctx, s.key(), state)
	return err
}

func (s *cronSink) key() string { return bus.TriggerKey(s.e.trigger.ID()) }
