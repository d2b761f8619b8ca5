package trigger

import (
	"context"
	"net/http"
	"time"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/gateway/trigger/secret"
	"github.com/tatami-faas/tatami/gateway/trigger/webhook"
	"github.com/tatami-faas/tatami/internal/fault"
)

// Hook makes an invocation of a request to a trigger's web hook, where its signature is good and the filters take it. The header and the body are
// not kept.
func (h *Hub) Hook(ctx context.Context, id functions.Ref, header http.Header, body []byte) (v1.Emitted, error) {
	e := h.entry(id)
	if e == nil || e.trigger.Webhook == nil {
		return v1.Emitted{}, fault.New(fault.CodeNotFound, "there is no web hook %s", id).WithHint("tatami trigger ls")
	}
	secrets, err := secret.Read(e.trigger.Webhook.Secret)
	if err != nil {
		e.tally.refused(err)
		return v1.Emitted{}, err
	}
	now := time.Now()
	if err := webhook.Verify(e.trigger.Webhook, secrets, header, body, now); err != nil {
		return v1.Emitted{}, err
	}
	if e.trigger.Paused {
		return v1.Emitted{}, fault.New(fault.CodeUnavailable, "the web hook %s is paused", id).WithRetryAfter(time.Minute)
	}
	ev := webhook.Event(&e.trigger, header, body, now)
	if err := ev.Validate(); err != nil {
		return v1.Emitted{}, err
	}
	if !e.trigger.Takes(&ev) {
		e.tally.filtered()
		return v1.Emitted{Event: ev.ID, Trigger: e.trigger.Name}, nil
	}
	inv, err := h.deliver(ctx, e, &ev, "")
	if err != nil {
		return v1.Emitted{}, err
	}
	return emittedBy(e, &ev, inv), nil
}
