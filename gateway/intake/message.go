package intake

import (
	"net/http"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tatami-faas/tatami/gateway"
	"github.com/tatami-faas/tatami/gateway/invoke"
	"github.com/tatami-faas/tatami/gateway/queue"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

const (
	// headerPath says at which path below the function, escaped and with its query, the message is handed over. Default "/".
	headerPath = "Tatami-Path"
	// headerCaller tells the function who the caller is.
	headerCaller = "Tatami-Caller"

	headerInvocation = invoke.HeaderInvocationID
	headerReplayed   = "Idempotency-Replayed"
)

// natsPrefix begins the headers that are NATS's own.
const natsPrefix = "Nats-"

// requestOf reads what a message asks for.
func (in *Intake) requestOf(m *nats.Msg, now time.Time) (queue.Request, error) {
	ref, caller, ok := bus.ParseCall(m.Subject)
	if !ok {
		return queue.Request{}, fault.New(fault.CodeInvalidRequest, "%.200q names no function", m.Subject).WithField("subject").WithHint("publish on fn.NAMESPACE.NAME")
	}
	if in.cfg.MaxBody > 0 && int64(len(m.Data)) > in.cfg.MaxBody {
		return queue.Request{}, fault.New(fault.CodeBodyTooLarge, "the message is larger than %d bytes", in.cfg.MaxBody).
			WithHint("send less, or start the server with a larger --max-body")
	}
	given := httpHeader(m.Header)
	how, err := gateway.HandoverOf(given, now)
	if err != nil {
		return queue.Request{}, err
	}
	r := queue.Request{
		Ref: ref, Header: invoke.MessageHeader(given), Body: m.Data, Trigger: Trigger, NotBefore: how.NotBefore, Key: how.Key, OrderingKey: how.OrderingKey,
		Callback: how.Callback,
	}
	r.Path, r.Query, _ = strings.Cut(given.Get(headerPath), "?")
	if caller != "" {
		r.Caller = "nats:" + caller
		r.Header[headerCaller] = []string{caller}
	}
	return r, nil
}

// httpHeader is a message's header with its fields' names as HTTP writes them, without what is NATS's own.
func httpHeader(h nats.Header) http.Header {
	out := make(http.Header, len(h))
	for k, v := range h {
		if k = http.CanonicalHeaderKey(k); !strings.HasPrefix(k, natsPrefix) {
			out[k] = append(out[k], v...)
		}
	}
	return out
}
