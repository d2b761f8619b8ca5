package gateway

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/problem"
	"github.com/tatami-faas/tatami/gateway/queue"
	"github.com/tatami-faas/tatami/internal/fault"
)

func (p *public) invocation(w http.ResponseWriter, r *http.Request) {
	if wantsEvents(r) {
		p.follow(w, r)
		return
	}
	wait, err := waitOf(r.URL.Query().Get("wait"))
	if err != nil {
		problem.Write(w, r, err)
		return
	}
	st, err := p.queue.Lookup(r.Context(), functions.InvocationID(chi.URLParam(r, "id")), wait)
	if err != nil {
		problem.Write(w, r, err)
		return
	}
	if !st.State.Terminal() {
		w.Header().Set("Retry-After", "1")
	}
	p.writeJSON(w, r, http.StatusOK, queue.Describe(&st))
}

// cancel ends an invocation: 200 where it is cancelled, 202 where its attempt takes long to end.
func (p *public) cancel(w http.ResponseWriter, r *http.Request) {
	st, err := p.queue.Cancel(r.Context(), functions.InvocationID(chi.URLParam(r, "id")))
	switch {
	case err != nil:
		problem.Write(w, r, err)
	case st.State.Terminal():
		p.writeJSON(w, r, http.StatusOK, queue.Describe(&st))
	default:
		w.Header().Set("Retry-After", "1")
		p.writeJSON(w, r, http.StatusAccepted, queue.Describe(&st))
	}
}

// waitOf reads how long to wait: a duration such as 30s, or seconds.
func waitOf(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	d, err := durationOf(s)
	if err != nil {
		return 0, fault.New(fault.CodeInvalidRequest, "wait: %.40q is no duration", s).WithField("wait").WithHint("write it like wait=30s")
	}
	return d, nil
}

// bodyHeaders are those of a result's headers that tell how to read its body.
var bodyHeaders = [...]string{"Content-Type", "Content-Encoding", "Content-Language", "Content-Disposition"}

// invocationBody gives the body of the function's last answer as it was.
func (p *public) invocationBody(w http.ResponseWriter, r *http.Request) {
	id := functions.InvocationID(chi.URLParam(r, "id"))
	st, err := p.queue.Lookup(r.Context(), id, 0)
	switch {
	case err != nil:
	case !st.State.Terminal():
		err = fault.New(fault.CodeConflict, "%s has not ended: it is %s", id, st.State).WithRetryAfter(time.Second).
			WithHint("wait for its end: GET %s%s?wait=30s", invocationPrefix, id)
	case st.Result == nil || st.Result.Status == 0:
		err = fault.New(fault.CodeNotFound, "%s has no answer: it is %s", id, st.State)
	}
	if err != nil {
		problem.Write(w, r, err)
		return
	}
	body, size, err := p.queue.OpenBody(r.Context(), st.Result)
	if err != nil {
		problem.Write(w, r, err)
		return
	}
	defer body.Close()
	h := w.Header()
	h["Content-Type"] = nil
	for _, k := range bodyHeaders {
		if v := st.Result.Header[k]; len(v) > 0 {
			h[k] = v
		}
	}
	h.Set("Content-Length", strconv.FormatInt(size, 10))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return
	}
	if n, err := io.Copy(newPatient(w, p.cfg.WriteTimeout), body); err != nil || n != size {
		// The client must not take a part for the whole.
		panic(http.ErrAbortHandler)
	}
}

func (p *public) writeJSON(w http.ResponseWriter, r *http.Request, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		problem.Write(w, r, errors.Join(errors.New("encoding the answer"), err))
		return
	}
	b = append(b, '\n')
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(b)))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = newPatient(w, p.cfg.WriteTimeout).Write(b)
	}
}
