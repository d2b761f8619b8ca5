package gateway

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"

	"github.com/go-chi/chi/v5"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/gateway/problem"
	"github.com/tatami-faas/tatami/gateway/trigger/cloudevents"
	"github.com/tatami-faas/tatami/internal/fault"
)

// Triggers takes events in.
type Triggers interface {
	// Publish hands events to the triggers of a namespace and returns what became of them, once that is durable.
	Publish(ctx context.Context, namespace string, events []functions.Event) ([]v1.Emitted, error)
}

const eventsPath = "/events"

// maxEvents is the largest body with events, in bytes, unless less is configured.
const maxEvents = 8 * functions.MiB

// Events makes the routes that take CloudEvents in: /events for the default namespace, /events/{namespace} for each.
func Events(ts Triggers, cfg Config) Routes {
	e := &events{public: public{cfg: cfg.withDefaults()}, triggers: ts, limit: maxEvents}
	if cfg.MaxBody > 0 {
		e.limit = min(e.limit, cfg.MaxBody)
	}
	return func(r chi.Router) {
		r.HandleFunc(eventsPath, e.serve)
		r.HandleFunc(eventsPath+"/{namespace}", e.serve)
	}
}

type events struct {
	public
	triggers Triggers
	limit    int64
}

// emitted is the answer to events that were taken in.
type emitted struct {
	// Events is how many there were.
	Events int `json:"events"`
	// Invocations are what became of them at the triggers that take them.
	Invocations []v1.Emitted `json:"invocations"`
}

func (e *events) serve(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodPost:
		e.post(w, r)
	case http.MethodOptions:
		handshake(w, r)
	default:
		notAllowed(w, r, "POST, OPTIONS")
	}
}

func notAllowed(w http.ResponseWriter, r *http.Request, allow string) {
	w.Header().Set("Allow", allow)
	problem.WriteStatus(w, r, fault.New(fault.CodeInvalidRequest, "%s is not possible on %.200q", r.Method, r.URL.Path).WithHint("use %s", allow),
		http.StatusMethodNotAllowed)
}

// handshake answers a sender that asks before its first event whether it is wanted (CloudEvents' HTTP web hooks, section 4): everybody is, at any
// rate. What is too much is refused when it comes, with 429.
func handshake(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	if origin := r.Header.Get("WebHook-Request-Origin"); origin != "" {
		h.Set("WebHook-Allowed-Origin", origin)
		if r.Header.Get("WebHook-Request-Rate") != "" {
			h.Set("WebHook-Allowed-Rate", "*")
		}
	}
	h.Set("Allow", http.MethodPost)
	w.WriteHeader(http.StatusNoContent)
}

func (e *events) post(w http.ResponseWriter, r *http.Request) {
	namespace := chi.URLParam(r, "namespace")
	if namespace == "" {
		namespace = functions.DefaultNamespace
	}
	if err := functions.ValidateName("namespace", namespace); err != nil {
		problem.Write(w, r, err)
		return
	}
	body, ok := readBody(w, r, e.limit)
	if !ok {
		return
	}
	evs, err := cloudevents.Read(r.Header, body)
	if err != nil {
		status := 0
		if errors.Is(err, cloudevents.ErrMediaType) {
			status = http.StatusUnsupportedMediaType
		}
		problem.WriteStatus(w, r, err, status)
		return
	}
	out, err := e.triggers.Publish(r.Context(), namespace, evs)
	if err != nil {
		problem.Write(w, r, err)
		return
	}
	e.writeJSON(w, r, http.StatusAccepted, emitted{Events: len(evs), Invocations: append([]v1.Emitted{}, out...)})
}

// readBody reads a body of at most limit bytes from a client that sends at a pace that can be waited for. False: the answer was given.
func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, bool) {
	large := fault.New(fault.CodeBodyTooLarge, "the body is larger than %d bytes", limit).WithHint("send less at a time")
	if r.ContentLength > limit {
		problem.Write(w, r, large)
		return nil, false
	}
	client := newClientBody(w, r)
	body, err := io.ReadAll(io.LimitReader(client, limit+1))
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		// The request's context has ended with the reading of its body, but the client is there.
		problem.Respond(w, r, client.fault())
	case err != nil:
		problem.Write(w, r, client.fault())
	case int64(len(body)) > limit:
		problem.Write(w, r, large)
	default:
		return body, true
	}
	return nil, false
}
