package gateway

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/problem"
	"github.com/tatami-faas/tatami/gateway/queue"
)

// eventStream is the media type of server-sent events.
const eventStream = "text/event-stream"

// beat is how often a stream of events shows that it lives.
const beat = 15 * time.Second

// wantsEvents reports whether the client asks for server-sent events.
func wantsEvents(r *http.Request) bool {
	if r.Method != http.MethodGet {
		return false
	}
	for _, v := range r.Header["Accept"] {
		for media := range strings.SplitSeq(v, ",") {
			media, _, _ = strings.Cut(media, ";")
			if strings.EqualFold(strings.TrimSpace(media), eventStream) {
				return true
			}
		}
	}
	return false
}

// follow tells where an invocation stands, as a stream of events that ends with the invocation. Each has the type "state" and for its data what
// the route says otherwise.
func (p *public) follow(w http.ResponseWriter, r *http.Request) {
	id := functions.InvocationID(chi.URLParam(r, "id"))
	// Beats and events are written by two.
	var mu sync.Mutex
	out := newPatient(w, p.cfg.WriteTimeout)
	begun := false
	write := func(text string) error {
		mu.Lock()
		defer mu.Unlock()
		_, err := out.Write([]byte(text))
		if err == nil {
			err = http.NewResponseController(w).Flush()
		}
		return err
	}
	stop := make(chan struct{})
	var beats sync.WaitGroup
	err := p.queue.Follow(r.Context(), id, func(st queue.Status) error {
		data, err := json.Marshal(queue.Describe(&st))
		if err != nil {
			return err
		}
		if !begun {
			begun = true
			h := w.Header()
			h.Set("Content-Type", eventStream)
			h.Set("Cache-Control", "no-store")
			h.Set("X-Content-Type-Options", "nosniff")
			w.WriteHeader(http.StatusOK)
			beats.Go(func() {
				t := time.NewTicker(beat)
				defer t.Stop()
				for {
					select {
					case <-stop:
						return
					case <-t.C:
						_ = write(": still here\n\n")
					}
				}
			})
		}
		return write(fmt.Sprintf("event: state\ndata: %s\n\n", data))
	})
	close(stop)
	beats.Wait()
	if err != nil && !begun {
		problem.Write(w, r, err)
	}
}
