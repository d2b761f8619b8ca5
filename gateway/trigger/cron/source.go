package cron

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"log/slog"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/trigger/source"
	"github.com/tatami-faas/tatami/internal/fault"
)

// Type is the type of the events.
const Type = "tatami.cron"

const (
	// grace is how late a firing may be before it counts as missed.
	grace = time.Minute
	// look is how long the source sleeps at most: clocks are set, and machines are suspended.
	look = time.Minute
	// The waits between two tries of a firing that the queue does not take now.
	leastWait = time.Second
	mostWait  = 30 * time.Second
	// handOver bounds one hand-over of a firing, and the writing of the history after it.
	handOver = 10 * time.Second
)

// Sink takes what the source makes, and keeps its state.
type Sink interface {
	// Emit makes an invocation of the event and returns when it is durable. The same event again is the same invocation.
	Emit(ctx context.Context, ev *functions.Event) (functions.InvocationID, error)
	// Ended reports whether an invocation is over; one that is not known is.
	Ended(ctx context.Context, id functions.InvocationID) (bool, error)
	// Cancel asks for the end of an invocation.
	Cancel(ctx context.Context, id functions.InvocationID) error
	// Load and Save keep the trigger's state; what was never saved is empty.
	Load(ctx context.Context) (functions.TriggerState, error)
	Save(ctx context.Context, s functions.TriggerState) error
}

// Source fires a trigger at the times of its schedule.
type Source struct {
	trigger  functions.Trigger
	schedule *Schedule
	sink     Sink
	log      *slog.Logger
	state    functions.TriggerState
	// from is the time that the next firing comes after.
	from time.Time
}

// New makes the source of a trigger that has one.
func New(t functions.Trigger, sink Sink, log *slog.Logger) (*Source, error) {
	s, err := Parse(t.Cron)
	if err != nil {
		return nil, err
	}
	return &Source{trigger: t, schedule: s, sink: sink, log: log}, nil
}

// Run fires until ctx ends, and returns nil then. What fell due while nothing ran, since the trigger was set, is made up for as it says.
func (s *Source) Run(ctx context.Context) error {
	var err error
	if s.state, err = s.sink.Load(ctx); err != nil {
		return err
	}
	s.from = s.state.Last
	if s.trigger.Updated.After(s.from) {
		s.from = s.trigger.Updated
	}
	if s.from.IsZero() {
		s.from = time.Now()
	}
	for ctx.Err() == nil {
		late, next := s.due(time.Now())
		if err := s.settle(ctx, late); err != nil {
			return err
		}
		if len(late) > 0 {
			continue
		}
		wait := look
		if !next.IsZero() {
			wait = min(time.Until(next), look)
		}
		source.Sleep(ctx, wait)
	}
	return nil
}

// maxLook is how many times in a row are looked at: where more have gone by, the older half of them is left out of sight.
const maxLook = 10_000

// due lists the times that have come, the last MaxCatchUp of them, and when the next one will, its jitter included.
func (s *Source) due(now time.Time) (late []time.Time, next time.Time) {
	at := s.from
	for n := 0; ; n++ {
		if n == maxLook {
			at, n, late = at.Add(now.Sub(at)/2), 0, nil
		}
		at = s.schedule.Next(at)
		if at.IsZero() {
			return late, time.Time{}
		}
		if with := at.Add(s.jitter(at)); with.After(now) {
			return late, with
		}
		if late = append(late, at); len(late) > functions.MaxCatchUp {
			late = late[1:]
		}
	}
}

// jitter is by how much a firing is put off: the same on every gateway.
func (s *Source) jitter(at time.Time) time.Duration {
	most := s.trigger.Cron.Jitter.Std()
	if most <= 0 {
		return 0
	}
	h := fnv.New64a()
	fmt.Fprintf(h, "%s/%s/%d", s.trigger.Namespace, s.trigger.Name, at.UnixNano())
	return time.Duration(h.Sum64() % uint64(most))
}

// settle deals with the times that have come.
func (s *Source) settle(ctx context.Context, late []time.Time) error {
	for i, at := range late {
		f := functions.Firing{Scheduled: at.UTC(), Outcome: functions.FiringMissed, Reason: "no gateway ran at the time"}
		if s.wanted(at, i == len(late)-1) {
			var err error
			if f, err = s.fire(ctx, at); err != nil || (ctx.Err() != nil && f.Invocation == "") {
				return err
			}
		}
		f.Fired = time.Now().UTC()
		s.from = at
		s.state.Add(f)
		if err := s.save(ctx); err != nil {
			return err
		}
	}
	return nil
}

// save keeps the history, also of a firing that was under way when ctx ended.
func (s *Source) save(ctx context.Context) error {
	begun, cancel := context.WithTimeout(context.WithoutCancel(ctx), handOver)
	defer cancel()
	return s.sink.Save(begun, s.state)
}

// emit hands a firing over. The end of ctx does not cut it off: its invocation would run all the same, unknown to the history and to the
// policy for overlaps.
func (s *Source) emit(ctx context.Context, ev *functions.Event) (functions.InvocationID, error) {
	begun, cancel := context.WithTimeout(context.WithoutCancel(ctx), handOver)
	defer cancel()
	return s.sink.Emit(begun, ev)
}

// wanted reports whether a time that has come is fired at: always where it is not late, else as the trigger says.
func (s *Source) wanted(at time.Time, last bool) bool {
	if time.Since(at.Add(s.jitter(at))) <= grace {
		return true
	}
	switch s.trigger.Cron.CatchUp {
	case functions.CatchUpNone:
		return false
	case functions.CatchUpAll:
		return true
	}
	return last
}

// fire makes an invocation of one time, as long as it takes for the queue to take it.
func (s *Source) fire(ctx context.Context, at time.Time) (functions.Firing, error) {
	f := functions.Firing{Scheduled: at.UTC(), Outcome: functions.FiringFired}
	if skip, err := s.overlaps(ctx); err != nil {
		return f, err
	} else if skip != "" {
		f.Outcome, f.Reason = functions.FiringSkipped, skip
		return f, nil
	}
	ev := Event(&s.trigger, at)
	for wait := leastWait; ctx.Err() == nil; wait = min(2*wait, mostWait) {
		id, err := s.emit(ctx, &ev)
		if err == nil {
			f.Invocation = id
			return f, nil
		}
		if isFinal(err) {
			f.Outcome, f.Reason = functions.FiringRefused, err.Error()
			return f, nil
		}
		s.log.Warn("a firing is not taken now, it is tried again", "trigger", s.trigger.ID().String(), "dur_ms", wait.Milliseconds(), "err", err)
		source.Sleep(ctx, wait)
	}
	return f, nil
}

// isFinal reports whether the same event would be refused again.
func isFinal(err error) bool {
	switch fault.KindOf(err) {
	case fault.Invalid, fault.NotFound, fault.Denied:
		return true
	}
	return false
}

// overlaps says why a firing is left out; "" where it is not.
func (s *Source) overlaps(ctx context.Context) (string, error) {
	before := s.state.Invocation()
	policy := s.trigger.Cron.Overlap
	if before == "" || policy == "" || policy == functions.OverlapAllow {
		return "", nil
	}
	ended, err := s.sink.Ended(ctx, before)
	if err != nil || ended {
		return "", err
	}
	if policy == functions.OverlapForbid {
		return string(before) + " has not ended", nil
	}
	if err := s.sink.Cancel(ctx, before); err != nil && fault.KindOf(err) != fault.NotFound && !fault.Is(err, fault.CodeConflict) {
		return "", err
	}
	return "", nil
}

// Event is the event of a firing: its id follows from the time, so that another firing at the same time is the same event.
func Event(t *functions.Trigger, at time.Time) functions.Event {
	ev := functions.Event{
		ID: at.UTC().Format(time.RFC3339Nano), Source: SourceOf(t), Type: Type, Time: at, DataContentType: "application/json", Data: []byte(t.Cron.Data),
	}
	switch {
	case len(ev.Data) == 0:
		data, err := json.Marshal(map[string]any{"trigger": t.Name, "scheduled": at})
		if err == nil {
			ev.Data = data
		}
	case !json.Valid(ev.Data):
		ev.DataContentType = "text/plain; charset=utf-8"
	}
	return ev
}

// SourceOf is the source of the events of a trigger.
func SourceOf(t *functions.Trigger) string {
	return "/tatami/triggers/" + t.Namespace + "/" + t.Name
}
