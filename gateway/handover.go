package gateway

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/queue"
	"github.com/tatami-faas/tatami/internal/fault"
)

// Handover is what the header of a request to the queue says about the handing over itself, whatever way it comes in.
type Handover struct {
	// NotBefore is when the first attempt may start; zero: at once.
	NotBefore time.Time
	// Key is the idempotency key, OrderingKey the one of those that run one after the other; empty where there is none.
	Key, OrderingKey string
	// Callback is where the record is to go when the invocation has ended; empty: nowhere.
	Callback string
}

// HandoverOf reads Tatami-Delay or Tatami-At, Idempotency-Key, Tatami-Ordering-Key and Tatami-Callback; the error's field names the one at fault.
func HandoverOf(h http.Header, now time.Time) (Handover, error) {
	var out Handover
	var err error
	if out.NotBefore, err = startOf(h, now); err != nil {
		return Handover{}, err
	}
	if out.Key, err = keyOf(h, headerKey); err != nil {
		return Handover{}, err
	}
	if out.OrderingKey, err = keyOf(h, headerOrder); err != nil {
		return Handover{}, err
	}
	switch urls := h[functions.HeaderCallback]; len(urls) {
	case 0:
	case 1:
		out.Callback = urls[0]
	default:
		return Handover{}, fault.New(fault.CodeInvalidRequest, "%s: %d are given, a request has one", functions.HeaderCallback, len(urls)).
			WithField(functions.HeaderCallback)
	}
	return out, nil
}

// Receipt is the answer to a request that was queued, in JSON.
func Receipt(r queue.Receipt) ([]byte, error) {
	return json.Marshal(accepted{ID: r.ID, Location: invocationPrefix + string(r.ID)})
}

// Standing is where an invocation stands, in JSON, as GET /invocations/{id} says it.
func Standing(st *queue.Status) ([]byte, error) { return json.Marshal(queue.Describe(st)) }
