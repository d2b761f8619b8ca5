package gateway

import (
	"context"
	"net/http"

	"github.com/go-chi/chi/v5"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/gateway/problem"
)

// Hooks takes web hooks in.
type Hooks interface {
	// Hook makes an invocation of a request to a trigger's hook, where its signature is good.
	Hook(ctx context.Context, id functions.Ref, h http.Header, body []byte) (v1.Emitted, error)
}

// Webhooks makes the route of the web hooks: /hooks/{trigger}, or /hooks/{trigger}.{namespace}.
func Webhooks(hs Hooks, cfg Config) Routes {
	p := &public{cfg: cfg.withDefaults()}
	limit := maxEvents
	if cfg.MaxBody > 0 {
		limit = min(limit, cfg.MaxBody)
	}
	return func(r chi.Router) {
		r.HandleFunc("/hooks/{trigger}", func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodPost {
				notAllowed(w, r, http.MethodPost)
				return
			}
			id, err := functions.ParseRef(chi.URLParam(r, "trigger"))
			if err != nil {
				problem.Write(w, r, err)
				return
			}
			body, ok := readBody(w, r, limit)
			if !ok {
				return
			}
			out, err := hs.Hook(r.Context(), id, r.Header, body)
			if err != nil {
				problem.Write(w, r, err)
				return
			}
			w.Header().Set("Location", out.Location)
			p.writeJSON(w, r, http.StatusAccepted, out)
		})
	}
}
