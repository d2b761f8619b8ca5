package gateway

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/tatami-faas/tatami/gateway/queue"
)

// Handover is what the header of a request to the queue says about the handing over itself, whatever way it comes in.
type Handover struct {
	// NotBefore is when the first attempt may start; zero: at once.
	NotBefore time.Time
	// Key is the idempotency key, OrderingKey the one of those that run one after the other; empty where there is none.
	Key, OrderingKey string
}

// HandoverOf reads Tatami-Delay or Tatami-At, Idempotency-Key and Tatami-Ordering-Key; the error's field names the one at fault.
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
	return out, nil
}

// Receipt is the answer to a request that was queued, in JSON.
func Receipt(r queue.Receipt) ([]byte, error) {
	return json.Marshal(accepted{ID: r.ID, Location: invocationPrefix + string(r.ID)})
}

// Standing is where an invocation stands, in JSON, as GET /invocations/{id} says it.
func Standing(st *queue.Status) ([]byte, error) { return json.Marshal(queue.Describe(st)) }
