package gateway

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/invoke"
	"github.com/tatami-faas/tatami/gateway/problem"
	"github.com/tatami-faas/tatami/gateway/queue"
	"github.com/tatami-faas/tatami/internal/fault"
)

// Functions is the data path: what the public routes need of the invoker.
type Functions interface {
	ServeFunction(w http.ResponseWriter, r *http.Request, ref functions.Ref, path string)
	ServeInvocation(w http.ResponseWriter, r *http.Request, ref functions.Ref, path string, id functions.InvocationID)
	AllowQueued(ctx context.Context, ref functions.Ref) (*functions.Revision, error)
	Ready() <-chan struct{}
}

// Queue is what the public routes need of the queue.
type Queue interface {
	Submit(ctx context.Context, r queue.Request) (queue.Receipt, error)
	Once(ctx context.Context, r queue.Request, run func(context.Context, queue.Call) (int, http.Header, queue.Outcome)) (queue.Answer, error)
	OpenAnswer(ctx context.Context, a *queue.Answer) (io.ReadCloser, int64, error)
	Lookup(ctx context.Context, id functions.InvocationID, wait time.Duration) (queue.Status, error)
	Follow(ctx context.Context, id functions.InvocationID, fn func(queue.Status) error) error
	Cancel(ctx context.Context, id functions.InvocationID) (queue.Status, error)
	OpenBody(ctx context.Context, rec *functions.Result) (io.ReadCloser, int64, error)
	Ready() <-chan struct{}
}

const (
	functionPrefix   = "/fn/"
	asyncPrefix      = "/async/"
	invocationPrefix = "/invocations/"
)

// public is the handler of the public listener.
type public struct {
	cfg   Config
	fns   Functions
	queue Queue
	other http.Handler
}

// Routes adds routes to the public listener.
type Routes func(chi.Router)

// Public makes the handler of the public listener: functions by path and by host, the queue's way in, its results, health, and more routes.
func Public(fns Functions, q Queue, cfg Config, more ...Routes) http.Handler {
	p := &public{cfg: cfg.withDefaults(), fns: fns, queue: ownOnly{q}}
	r := chi.NewRouter()
	for _, add := range more {
		add(r)
	}
	r.Post(asyncPrefix+"*", p.async)
	r.Get(invocationPrefix+"{id}", p.invocation)
	r.Head(invocationPrefix+"{id}", p.invocation)
	r.Delete(invocationPrefix+"{id}", p.cancel)
	r.Get(invocationPrefix+"{id}/body", p.invocationBody)
	r.Head(invocationPrefix+"{id}/body", p.invocationBody)
	r.Get("/healthz", p.health)
	r.Head("/healthz", p.health)
	r.Get("/readyz", p.readiness)
	r.Head("/readyz", p.readiness)
	r.NotFound(func(w http.ResponseWriter, r *http.Request) {
		problem.Write(w, r, fault.New(fault.CodeNotFound, "there is nothing at %.200q", r.URL.Path).
			WithHint("functions are at /fn/NAME or /fn/NAME.NAMESPACE, and at /async/NAME for the queue"))
	})
	r.MethodNotAllowed(func(w http.ResponseWriter, r *http.Request) {
		allow := "GET, HEAD"
		switch {
		case strings.HasPrefix(r.URL.Path, asyncPrefix):
			allow = http.MethodPost
		case strings.HasPrefix(r.URL.Path, invocationPrefix) && !strings.HasSuffix(r.URL.Path, "/body"):
			allow = "GET, HEAD, DELETE"
		}
		w.Header().Set("Allow", allow)
		problem.WriteStatus(w, r, fault.New(fault.CodeInvalidRequest, "%s is not possible on %.200q", r.Method, r.URL.Path).
			WithHint("use %s", allow), http.StatusMethodNotAllowed)
	})
	p.other = r
	return p
}

// ServeHTTP routes functions itself: their requests may have any method, and what they need is a cut of the path and no router.
func (p *public) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if ref, below := splitHost(r.Host, p.cfg.Domain); below {
		p.function(w, r, ref, rawPath(r), true)
		return
	}
	path := rawPath(r)
	if ref, rest, ok := splitFunction(path, functionPrefix); ok {
		p.function(w, r, ref, rest, false)
		return
	}
	p.other.ServeHTTP(w, r)
}

func (p *public) function(w http.ResponseWriter, r *http.Request, ref functions.Ref, path string, byHost bool) {
	if path == "" || path[0] != '/' {
		// OPTIONS * and the like.
		path = "/" + path
	}
	if len(r.Header["Prefer"]) > 0 && prefersAsync(r) {
		p.accept(w, r, ref, path, byHost)
		return
	}
	if len(r.Header[headerKey]) > 0 {
		p.once(w, r, ref, path)
		return
	}
	p.fns.ServeFunction(w, r, ref, path)
}

// prefersAsync reports whether the client asks for the queue (RFC 7240) with a request that can be queued.
func prefersAsync(r *http.Request) bool {
	switch r.Method {
	case http.MethodConnect, http.MethodTrace, http.MethodOptions:
		return false
	}
	if invoke.UpgradeOf(r.Header) != "" {
		return false
	}
	for _, v := range r.Header["Prefer"] {
		for pref := range strings.SplitSeq(v, ",") {
			pref, _, _ = strings.Cut(pref, ";")
			if strings.EqualFold(strings.TrimSpace(pref), "respond-async") {
				return true
			}
		}
	}
	return false
}

func (p *public) async(w http.ResponseWriter, r *http.Request) {
	ref, path, ok := splitFunction(rawPath(r), asyncPrefix)
	if !ok {
		problem.Write(w, r, fault.New(fault.CodeNotFound, "the path names no function").WithHint("POST /async/NAME"))
		return
	}
	p.accept(w, r, ref, path, false)
}

// accepted is the answer to a request that was queued.
type accepted struct {
	ID       functions.InvocationID `json:"id"`
	Location string                 `json:"location"`
}

// accept hands the request over to the queue and answers when it is durable.
func (p *public) accept(w http.ResponseWriter, r *http.Request, ref functions.Ref, path string, byHost bool) {
	receipt, err := p.enqueue(w, r, ref, path)
	id := receipt.ID
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		// The request's context has ended with the reading of its body, but the client is there.
		problem.Respond(w, r, err)
		return
	case err != nil:
		problem.Write(w, r, err)
		return
	}
	location := invocationPrefix + string(id)
	if byHost {
		// On the function's own host that path would be the function's.
		host := r.Host[len(ref.Name)+len(ref.Namespace)+2:]
		location = "//" + host + location
	}
	h := w.Header()
	h.Set("Location", location)
	h.Set(invoke.HeaderInvocationID, string(id))
	if receipt.Replayed {
		h.Set(headerReplayed, "true")
	}
	if len(r.Header["Prefer"]) > 0 {
		h.Set("Preference-Applied", "respond-async")
	}
	p.writeJSON(w, r, http.StatusAccepted, accepted{ID: id, Location: location})
}

func (p *public) enqueue(w http.ResponseWriter, r *http.Request, ref functions.Ref, path string) (queue.Receipt, error) {
	if err := p.tooLong(r); err != nil {
		return queue.Receipt{}, err
	}
	if _, err := p.fns.AllowQueued(r.Context(), ref); err != nil {
		return queue.Receipt{}, err
	}
	how, err := HandoverOf(r.Header, time.Now())
	if err != nil {
		return queue.Receipt{}, err
	}
	hops, err := depthOf(r.Header)
	if err != nil {
		return queue.Receipt{}, err
	}
	body, name := newClientBody(w, r), nameOf(r.Context())
	receipt, err := p.queue.Submit(r.Context(), queue.Request{
		ID: name.id, Again: name.again,
		Ref: ref, Method: r.Method, Path: path, Query: r.URL.RawQuery, Header: invoke.QueuedHeader(r), BodyReader: body, Trigger: "http",
		NotBefore: how.NotBefore, Key: how.Key, OrderingKey: how.OrderingKey, Callback: how.Callback, Hops: hops,
	})
	if err != nil && body.err != nil {
		return queue.Receipt{}, body.fault()
	}
	return receipt, err
}

// tooLong refuses a body whose length says that it is not taken.
func (p *public) tooLong(r *http.Request) error {
	if p.cfg.MaxBody == 0 || r.ContentLength <= p.cfg.MaxBody {
		return nil
	}
	return fault.New(fault.CodeBodyTooLarge, "the body is larger than %d bytes", p.cfg.MaxBody).
		WithHint("send less, or start the server with a larger --max-body")
}

func (p *public) health(w http.ResponseWriter, r *http.Request) {
	p.writeJSON(w, r, http.StatusOK, map[string]string{"status": "ok"})
}

// readiness is for load balancers: it fails before the routes are known and from the beginning of the drain.
func (p *public) readiness(w http.ResponseWriter, r *http.Request) {
	for _, part := range []<-chan struct{}{p.fns.Ready(), p.queue.Ready()} {
		select {
		case <-part:
		default:
			problem.Write(w, r, fault.New(fault.CodeUnavailable, "the gateway is starting").WithRetryAfter(time.Second))
			return
		}
	}
	if isDraining(r) {
		problem.Write(w, r, fault.New(fault.CodeDraining, "the gateway is stopping"))
		return
	}
	p.writeJSON(w, r, http.StatusOK, map[string]string{"status": "ready"})
}
