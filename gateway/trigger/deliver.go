package trigger

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/gateway/queue"
	"github.com/tatami-faas/tatami/gateway/trigger/cloudevents"
	"github.com/tatami-faas/tatami/gateway/trigger/cron"
	"github.com/tatami-faas/tatami/internal/fault"
)

const (
	// headerTrigger tells the function which trigger took the event.
	headerTrigger = "Tatami-Trigger"
	// preferReply tells the function that it may answer with an event.
	preferReply = "reply"
	// atOnce is how many events of one message are handed over at the same time.
	atOnce = 16
)

// Publish hands events to every trigger of the namespace that takes what is posted. It returns what became of each event at each trigger that
// takes it, once that is durable. The order in which the events are handed over is not theirs. An error is one after which the same events
// may be published again: what was accepted already is not accepted twice.
func (h *Hub) Publish(ctx context.Context, namespace string, events []functions.Event) ([]v1.Emitted, error) {
	h.mu.RLock()
	triggers := h.posted[namespace]
	h.mu.RUnlock()
	out := make([]v1.Emitted, len(events)*len(triggers))
	var group errgroup.Group
	group.SetLimit(atOnce)
	for i := range events {
		for j, e := range triggers {
			group.Go(func() (err error) {
				out[i*len(triggers)+j], err = h.offer(ctx, e, &events[i])
				return err
			})
		}
	}
	err := group.Wait()
	taken := out[:0]
	for _, em := range out {
		if em.Trigger != "" {
			taken = append(taken, em)
		}
	}
	return taken, err
}

// offer is deliver, with a final refusal as part of what became of the event.
func (h *Hub) offer(ctx context.Context, e *entry, ev *functions.Event) (v1.Emitted, error) {
	if !e.trigger.Takes(ev) {
		e.tally.filtered()
		return v1.Emitted{}, nil
	}
	out := v1.Emitted{Event: ev.ID, Trigger: e.trigger.Name}
	id, err := h.deliver(ctx, e, ev, "")
	switch {
	case err == nil:
		out = emittedBy(e, ev, id)
	case isFinal(err):
		out.Error, out.Detail, err = string(fault.CodeOf(err)), err.Error(), nil
	}
	return out, err
}

// isFinal reports whether the same event would be refused again.
func isFinal(err error) bool {
	switch fault.KindOf(err) {
	case fault.Invalid, fault.NotFound, fault.Denied:
		return true
	}
	return false
}

// deliver makes one invocation of an event that the trigger takes, and returns when it is durable. Those with the same order run one after the
// other; "" is none.
func (h *Hub) deliver(ctx context.Context, e *entry, ev *functions.Event, order string) (functions.InvocationID, error) {
	t := &e.trigger
	id, err := h.accept(ctx, queue.Request{
		Ref: t.Ref(), Method: http.MethodPost, Path: t.Path, Header: headerOf(t, ev), Body: ev.Data, Trigger: t.Kind(), Key: keyOf(t, ev),
		Caller: "trigger", OrderingKey: order,
	})
	if err != nil {
		e.tally.refused(err)
		return "", err
	}
	e.tally.accepted()
	return id, nil
}

// Try hands an event over to one trigger, paused or not, whatever its filters say. What the request leaves out is filled in.
func (h *Hub) Try(ctx context.Context, id functions.Ref, req v1.EmitRequest) (v1.Emitted, error) {
	e := h.entry(id)
	if e == nil {
		return v1.Emitted{}, fault.New(fault.CodeNotFound, "there is no trigger %s", id).WithHint("tatami trigger ls")
	}
	ev := tried(&e.trigger, req)
	if err := ev.Validate(); err != nil {
		return v1.Emitted{}, err
	}
	inv, err := h.deliver(ctx, e, &ev, "")
	if err != nil {
		return v1.Emitted{}, err
	}
	return emittedBy(e, &ev, inv), nil
}

// tried is an event to try a trigger with: that of a firing at this time for a cron trigger.
func tried(t *functions.Trigger, req v1.EmitRequest) functions.Event {
	ev := functions.Event{Source: cron.SourceOf(t), Type: "tatami.test", Time: time.Now().UTC()}
	if t.Cron != nil {
		ev = cron.Event(t, ev.Time)
	}
	ev.ID, ev.Subject = cmp.Or(req.ID, "test-"+rand.Text()), req.Subject
	ev.Source, ev.Type = cmp.Or(req.Source, ev.Source), cmp.Or(req.Type, ev.Type)
	if req.Data != nil || req.ContentType != "" {
		ev.Data, ev.DataContentType = req.Data, req.ContentType
	}
	return ev
}

func emittedBy(e *entry, ev *functions.Event, inv functions.InvocationID) v1.Emitted {
	return v1.Emitted{Event: ev.ID, Trigger: e.trigger.Name, ID: inv, Location: "/invocations/" + string(inv)}
}

func (h *Hub) accept(ctx context.Context, r queue.Request) (functions.InvocationID, error) {
	if _, err := h.admit.AllowQueued(ctx, r.Ref); err != nil {
		return "", err
	}
	return h.queue.Accept(ctx, r)
}

// keyOf is the same for the same event at the same trigger.
func keyOf(t *functions.Trigger, ev *functions.Event) string {
	sum := sha256.Sum256([]byte(t.Name + "\x00" + ev.Source + "\x00" + ev.ID))
	return hex.EncodeToString(sum[:])
}

// headerOf is the header of the request that the function gets.
func headerOf(t *functions.Trigger, ev *functions.Event) http.Header {
	h := cloudevents.Header(ev)
	h.Set(headerTrigger, t.Name)
	if t.Reply {
		h.Set("Prefer", preferReply)
	}
	return h
}
