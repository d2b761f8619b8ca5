package trigger_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway"
	"github.com/tatami-faas/tatami/gateway/queue"
	"github.com/tatami-faas/tatami/gateway/trigger"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// path runs each function as an HTTP handler of this process, in the data path's place.
type path struct {
	mu      sync.Mutex
	fns     map[functions.Ref]http.Handler
	backlog map[functions.Ref]int
}

func (p *path) deploy(name string, h http.Handler) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fns[functions.Ref{Namespace: "default", Name: name}] = h
}

func (p *path) Lookup(_ context.Context, ref functions.Ref) (*functions.Revision, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fns[ref] == nil {
		return nil, fault.New(fault.CodeFunctionNotFound, "there is no function %s", ref)
	}
	return &functions.Revision{Schema: 1, ID: "rev_test", Namespace: ref.Namespace, Function: ref.Name, Config: functions.Config{}.WithDefaults()}, nil
}

func (p *path) AllowQueued(ctx context.Context, ref functions.Ref) (*functions.Revision, error) {
	return p.Lookup(ctx, ref)
}

func (p *path) SetBacklog(ref functions.Ref, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.backlog[ref] = max(p.backlog[ref], n)
}

func (p *path) Lease(ctx context.Context, ref functions.Ref) (queue.Lease, error) {
	rev, err := p.Lookup(ctx, ref)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return lease{p.fns[ref], rev}, nil
}

func (p *path) ServeFunction(w http.ResponseWriter, _ *http.Request, _ functions.Ref, _ string) {
	w.WriteHeader(http.StatusTeapot)
}

func (p *path) ServeInvocation(w http.ResponseWriter, r *http.Request, ref functions.Ref, rest string, _ functions.InvocationID) {
	p.ServeFunction(w, r, ref, rest)
}

func (p *path) Ready() <-chan struct{} {
	done := make(chan struct{})
	close(done)
	return done
}

type lease struct {
	h   http.Handler
	rev *functions.Revision
}

func (l lease) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	l.h.ServeHTTP(w, r)
	return w.Result(), nil
}
func (lease) Release()                        {}
func (l lease) Revision() *functions.Revision { return l.rev }
func (lease) Instance() functions.InstanceID  { return "ins_test" }
func (lease) Cold() bool                      { return false }

// world is a store, a queue, the triggers and the public listener at work.
type world struct {
	t    *testing.T
	path *path
	bus  *bus.Bus
	q    *queue.Queue
	hub  *trigger.Hub
	url  string
	stop func()
}

func start(t *testing.T) *world { return startIn(t, t.TempDir()) }

func startIn(t *testing.T, dir string) *world {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	b, err := bus.Open(t.Context(), bus.Config{DataDir: dir}, log)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, path: &path{fns: map[functions.Ref]http.Handler{}, backlog: map[functions.Ref]int{}}, bus: b}
	if w.q, err = queue.NewOver(queue.Config{BackoffBase: time.Millisecond, BackoffMax: 2 * time.Millisecond}, b, w.path, log); err != nil {
		t.Fatal(err)
	}
	w.hub = trigger.New(b, w.q, w.path, log)
	w.q.OnSuccess(func(ctx context.Context, inv *functions.Invocation, rec *functions.Result) error {
		return w.hub.Reply(ctx, inv, rec, w.q.OpenBody)
	})
	srv := httptest.NewServer(gateway.Public(w.path, w.q, gateway.Config{}, gateway.Events(w.hub, gateway.Config{}), gateway.Webhooks(w.hub, gateway.Config{})))
	w.url = srv.URL
	run := func(f func(context.Context) error) func() {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- f(ctx) }()
		return func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Run: %v", err)
			}
		}
	}
	stopQueue, stopHub := run(w.q.Run), run(w.hub.Run)
	<-w.q.Ready()
	<-w.hub.Ready()
	w.stop = sync.OnceFunc(func() {
		srv.CloseClientConnections()
		srv.Close()
		stopHub()
		stopQueue()
		if err := b.Close(context.Background()); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	t.Cleanup(w.stop)
	return w
}

// set stores a trigger as the control API does, and waits until it is at work.
func (w *world) set(t functions.Trigger) {
	w.t.Helper()
	t = t.WithDefaults()
	t.Created, t.Updated = time.Unix(1, 0), time.Now()
	if err := t.Validate(); err != nil {
		w.t.Fatal(err)
	}
	rev, err := w.bus.Triggers().Put(w.t.Context(), bus.TriggerKey(t.ID()), t)
	if err == nil {
		err = w.hub.WaitApplied(w.t.Context(), rev)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// post posts to the public listener and returns status and body.
func (w *world) post(path string, h http.Header, body io.Reader) (*http.Response, string) {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, w.url+path, body)
	if err != nil {
		w.t.Fatal(err)
	}
	for k, v := range h {
		r.Header[http.CanonicalHeaderKey(k)] = v
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp, string(b)
}

// ended waits for the end of an invocation.
func (w *world) ended(id functions.InvocationID) queue.Status {
	w.t.Helper()
	for {
		st, err := w.q.Lookup(w.t.Context(), id, 30*time.Second)
		if err != nil {
			w.t.Fatal(err)
		}
		if st.State.Terminal() {
			return st
		}
	}
}

// mustGet receives what has to come.
func mustGet[T any](t *testing.T, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(time.Minute):
		t.Fatal("nothing came")
		panic("not reached")
	}
}
