package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/go-chi/chi/v5"

	"github.com/tatami-faas/tatami/functions"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/gateway/problem"
	"github.com/tatami-faas/tatami/internal/fault"
)

// Config is what can be set of the API.
type Config struct {
	// Version is what /v1/version answers.
	Version v1.Version
	// MaxBlob is the largest blob that is taken. Defaults to 4 GiB.
	MaxBlob int64
	// DeployTimeout is how long a deploy waits for its revision, beyond the function's own readiness timeout. Defaults to 10 minutes.
	DeployTimeout time.Duration
	// BlobGrace is how long a blob that no revision uses is kept: an upload comes before its deploy. Defaults to 1 hour.
	BlobGrace time.Duration
	// SweepInterval is how often such blobs are looked for. Defaults to 5 minutes.
	SweepInterval time.Duration
}

func (c Config) withDefaults() Config {
	if c.MaxBlob == 0 {
		c.MaxBlob = 4 * functions.GiB
	}
	if c.DeployTimeout == 0 {
		c.DeployTimeout = 10 * time.Minute
	}
	if c.BlobGrace == 0 {
		c.BlobGrace = time.Hour
	}
	if c.SweepInterval == 0 {
		c.SweepInterval = 5 * time.Minute
	}
	return c
}

func (d Deps) validate() error {
	if d.Bus == nil || d.Routes == nil || d.Queue == nil || d.Logs == nil || d.Exec == nil || d.Images == nil || d.Traffic == nil || d.Info == nil ||
		d.Triggers == nil {
		return errors.New("api: Deps needs Bus, Routes, Queue, Logs, Exec, Images, Traffic, Info and Triggers")
	}
	return nil
}

// API is the control API.
type API struct {
	cfg     Config
	deps    Deps
	log     *slog.Logger
	handler http.Handler

	// records is held while the records of functions are changed, or the blobs that no record names are removed.
	records sync.Mutex
	blobs   blobUse
	judged  judged
	sweep   chan struct{}
}

// New makes the API; nothing runs until Run.
func New(cfg Config, deps Deps, log *slog.Logger) (*API, error) {
	if err := deps.validate(); err != nil {
		return nil, err
	}
	a := &API{cfg: cfg.withDefaults(), deps: deps, log: log, sweep: make(chan struct{}, 1), blobs: newBlobUse()}
	a.handler = a.routes()
	return a, nil
}

// Handler serves the control listener.
func (a *API) Handler() http.Handler { return a.handler }

// Run removes artifacts that no revision uses any more, until ctx ends. The API answers without it.
func (a *API) Run(ctx context.Context) error {
	tick := time.NewTicker(a.cfg.SweepInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-a.sweep:
		}
		if err := a.sweepBlobs(ctx); err != nil && ctx.Err() == nil {
			a.log.Warn("unused artifacts were not removed", "err", err)
		}
	}
}

func (a *API) sweepSoon() {
	select {
	case a.sweep <- struct{}{}:
	default:
	}
}

func (a *API) routes() http.Handler {
	mux := chi.NewRouter()
	var r chi.Router = mux
	r.Use(a.recover, rememberHost)
	if a.deps.Auth != nil {
		r.Use(a.deps.Auth.Middleware)
		r.Get("/login", a.deps.Auth.Login)
	}
	nothing := func(w http.ResponseWriter, r *http.Request) {
		problem.Write(w, r, fault.New(fault.CodeNotFound, "there is nothing at %s", r.URL.Path).WithHint("/openapi.json lists what there is"))
	}
	r.NotFound(nothing)
	r.MethodNotAllowed(func(w http.ResponseWriter, r *http.Request) {
		allow := strings.Join(allowed(mux, r.URL.Path), ", ")
		if allow == "" {
			nothing(w, r)
			return
		}
		w.Header().Set("Allow", allow)
		problem.WriteStatus(w, r, fault.New(fault.CodeInvalidRequest, "%s is not possible on %s", r.Method, r.URL.Path).
			WithHint("use %s; /openapi.json lists what there is", allow), http.StatusMethodNotAllowed)
	})
	h := humachi.New(r, humaConfig())
	a.registerFunctions(h)
	a.registerBlobs(h, r)
	a.registerSystem(h)
	a.registerNodes(h)
	a.registerMembers(h)
	a.registerCallers(h)
	a.registerCertificates(h)
	a.registerQueue(h)
	a.registerQuotas(h)
	a.registerTriggers(h)
	a.registerLogs(h, r)
	a.registerToken(h)
	for _, unused := range []string{"ErrorModel", "ErrorDetail"} {
		delete(h.OpenAPI().Components.Schemas.Map(), unused) // huma's own errors, which ours replace
	}
	if a.deps.Extra != nil {
		a.deps.Extra(r)
		describeExtra(h)
	}
	openAnswers(h)
	return mux
}

// allowed lists the methods that a path takes.
func allowed(mux *chi.Mux, path string) []string {
	return slices.DeleteFunc([]string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete}, func(method string) bool {
		return !mux.Match(chi.NewRouteContext(), method, path)
	})
}

// recover answers for a handler that panicked, and says in the log where.
func (a *API) recover(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			v := recover()
			if v == nil {
				return
			}
			if v == http.ErrAbortHandler { //nolint:errorlint // net/http's own value, compared as net/http does
				panic(v)
			}
			a.log.Error("a handler panicked", "method", r.Method, "path", r.URL.Path, "panic", v, "stack", string(debug.Stack()))
			problem.Write(w, r, fault.New(fault.CodeInternal, "an internal error happened; the server's log has it"))
		}()
		next.ServeHTTP(w, r)
	})
}

// clip shortens what a caller wrote, to be repeated in a message.
func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}

// body is an answer in JSON.
type body[T any] struct{ Body T }

// none is an answer without content, or a request without input.
type none struct{}

// handle registers an operation whose errors are answered as problems.
func handle[I, O any](a *API, h huma.API, op huma.Operation, fn func(context.Context, *I) (*O, error)) {
	op.Responses = responses(op)
	if op.MaxBodyBytes == 0 {
		op.MaxBodyBytes = 1 << 20
	}
	huma.Register(h, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := fn(ctx, in)
		if err != nil {
			return nil, a.failure(ctx, op.OperationID, err)
		}
		return out, nil
	})
}
