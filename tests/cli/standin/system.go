package standin

import (
	"cmp"
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/functions/build"
	"github.com/tatami-faas/tatami/gateway/api"
	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
	"github.com/tatami-faas/tatami/gateway/auth"
	"github.com/tatami-faas/tatami/gateway/client"
	"github.com/tatami-faas/tatami/gateway/trigger"
	"github.com/tatami-faas/tatami/internal/bus"
)

// System is a running stand-in.
type System struct {
	Bus       *bus.Bus
	API       *api.API
	Auth      *auth.Auth
	Scheduler *Scheduler
	Routes    *Routes
	Queue     *Queue
	// Dir holds the store and the token. Socket, Control and Public are where it listens.
	Dir, Socket     string
	Control, Public *httptest.Server
}

// Config changes a stand-in.
type Config struct {
	API api.Config
	// Images resolves references; nil: the real resolver.
	Images api.ImageResolver
	// PublicURL is what the API takes for the address of the public listener; empty: its own.
	PublicURL string
	// Traffic is what the gateways count. Default nothing.
	Traffic func() api.Traffic
}

// Start runs a stand-in until the test ends.
func Start(t testing.TB, cfg Config) *System {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	dir, err := os.MkdirTemp("", "standin") //nolint:usetesting // a test's own directory may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	s := &System{Dir: dir, Socket: filepath.Join(dir, "c.sock")}
	if s.Bus, err = bus.Open(t.Context(), bus.Config{DataDir: filepath.Join(dir, "data"), MaxStore: functions.GiB}, log); err != nil {
		t.Fatal(err)
	}
	if s.Auth, err = auth.New(auth.Config{TokenFile: filepath.Join(dir, "token")}, log); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var parts sync.WaitGroup
	s.Scheduler, s.Routes, s.Queue = newScheduler(t, s.Bus), newRoutes(), newQueue()
	parts.Go(func() { s.Scheduler.run(ctx) })
	parts.Go(func() { s.Routes.run(ctx, t, s.Bus) })
	triggers := trigger.New(s.Bus, acceptor{}, acceptor{}, log)
	parts.Go(func() {
		if err := triggers.Run(ctx); err != nil {
			t.Error(err)
		}
	})

	s.Public = httptest.NewServer(publicHandler(s.Bus))
	if cfg.Images == nil {
		cfg.Images = build.NewResolver(build.ResolverConfig{Timeout: 5 * time.Second})
	}
	if cfg.API.Version.Version == "" {
		cfg.API.Version = v1.Version{Version: "test", Go: "go", OS: "linux", Arch: "amd64"}
	}
	s.API, err = api.New(cfg.API, api.Deps{
		Bus: s.Bus, Auth: s.Auth, Routes: s.Routes, Queue: s.Queue, Logs: logs{}, Exec: executor{}, Images: cfg.Images, Triggers: triggers,
		Traffic: func(context.Context) api.Traffic {
			if cfg.Traffic == nil {
				return api.Traffic{}
			}
			return cfg.Traffic()
		},
		Info: func() api.Info {
			return api.Info{PublicURL: cmp.Or(cfg.PublicURL, s.Public.URL), ControlURL: s.Control.URL, DataDir: dir, Started: time.Now().Add(-time.Minute)}
		},
		Doctor: func(context.Context) []v1.Check {
			return []v1.Check{{Name: "containerd", State: v1.CheckOK, Detail: "answers"}}
		},
		Extra: func(r chi.Router) {
			for _, path := range []string{"/ui/", "/v1/overview", "/v1/stream", "/metrics"} {
				r.Get(path, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("dashboard")) })
			}
		},
	}, log)
	if err != nil {
		t.Fatal(err)
	}
	s.Control = httptest.NewServer(s.API.Handler())
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "unix", s.Socket)
	if err != nil {
		t.Fatal(err)
	}
	onSocket := &http.Server{Handler: s.API.Handler(), ReadHeaderTimeout: time.Minute}
	parts.Go(func() { _ = onSocket.Serve(l) })
	parts.Go(func() { _ = s.API.Run(ctx) })
	t.Cleanup(func() {
		s.Public.CloseClientConnections()
		s.Public.Close()
		s.Control.CloseClientConnections()
		s.Control.Close()
		_ = onSocket.Close()
		stop()
		parts.Wait()
		if err := s.Bus.Close(context.Background()); err != nil {
			t.Error(err)
		}
		_ = os.RemoveAll(dir)
	})
	return s
}

// Client returns a client over the socket.
func (s *System) Client(t testing.TB) *client.Client {
	t.Helper()
	c, err := client.New("unix://" + s.Socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// Routes is a route table that knows what its watch has seen.
type Routes struct {
	mu      sync.Mutex
	applied uint64
	waited  uint64
	grown   chan struct{}
}

func newRoutes() *Routes { return &Routes{grown: make(chan struct{})} }

func (r *Routes) run(ctx context.Context, t testing.TB, b *bus.Bus) {
	err := b.Functions().Watch(ctx, "", func(e bus.Event[functions.Function]) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.applied = max(r.applied, e.Revision)
		close(r.grown)
		r.grown = make(chan struct{})
	})
	if err != nil {
		t.Error(err)
	}
}

// Waited returns the newest revision that was waited for.
func (r *Routes) Waited() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.waited
}

// Applied returns the newest revision of the bucket that was seen.
func (r *Routes) Applied() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.applied
}

// WaitApplied returns when the revision was seen.
func (r *Routes) WaitApplied(ctx context.Context, revision uint64) error {
	for {
		r.mu.Lock()
		r.waited = max(r.waited, revision)
		applied, grown := r.applied, r.grown
		r.mu.Unlock()
		if applied >= revision {
			return nil
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
