package intake_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	mrand "math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/intake"
	"github.com/tatami-faas/tatami/gateway/queue"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// path runs the function echo of each namespace in this process: it answers with what it was sent.
type path struct {
	mu   sync.Mutex
	seen []*http.Request
}

func (p *path) Lookup(_ context.Context, ref functions.Ref) (*functions.Revision, error) {
	if ref.Name != "echo" {
		return nil, fault.New(fault.CodeFunctionNotFound, "there is no function %s", ref)
	}
	return &functions.Revision{Schema: 1, ID: "rev_test", Namespace: ref.Namespace, Function: ref.Name, Config: functions.Config{}.WithDefaults()}, nil
}

func (p *path) AllowQueued(ctx context.Context, ref functions.Ref) (*functions.Revision, error) {
	return p.Lookup(ctx, ref)
}
func (p *path) SetBacklog(functions.Ref, int) {}
func (p *path) Lease(ctx context.Context, ref functions.Ref) (queue.Lease, error) {
	rev, err := p.Lookup(ctx, ref)
	return lease{p, rev}, err
}

type lease struct {
	p   *path
	rev *functions.Revision
}

func (l lease) RoundTrip(r *http.Request) (*http.Response, error) {
	l.p.mu.Lock()
	l.p.seen = append(l.p.seen, r)
	l.p.mu.Unlock()
	w := httptest.NewRecorder()
	w.Header().Set("Content-Type", "text/plain")
	_, _ = io.Copy(w, r.Body)
	return w.Result(), nil
}
func (lease) Release()                        {}
func (l lease) Revision() *functions.Revision { return l.rev }
func (lease) Instance() functions.InstanceID  { return "ins_test" }
func (lease) Cold() bool                      { return false }

// world is a store that NATS clients reach, a queue and an intake at work.
type world struct {
	t    *testing.T
	path *path
	bus  *bus.Bus
	q    *queue.Queue
	stop func()
}

func start(t *testing.T, cfg intake.Config, wrap func(intake.Queue) intake.Queue) *world {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	// An address that no other socket gets.
	addr := fmt.Sprintf("127.%d.%d.%d:0", 1+mrand.IntN(254), mrand.IntN(255), 1+mrand.IntN(254))
	b, err := bus.Open(t.Context(), bus.Config{DataDir: t.TempDir(), Listen: addr}, log)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, path: &path{}, bus: b}
	if w.q, err = queue.NewOver(queue.Config{}, b, w.path, log); err != nil {
		t.Fatal(err)
	}
	var q intake.Queue = w.q
	if wrap != nil {
		q = wrap(q)
	}
	in, err := intake.New(cfg, b, q, w.path, log)
	if err != nil {
		t.Fatal(err)
	}
	w.q.OnEnd(in.Ended)
	run := func(f func(context.Context) error) func() {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() {
			err := f(ctx)
			if err != nil {
				t.Errorf("Run: %v", err)
			}
			done <- err
		}()
		return func() { cancel(); <-done }
	}
	stopQueue, stopIntake := run(w.q.Run), run(in.Run)
	<-w.q.Ready()
	<-in.Ready()
	w.stop = sync.OnceFunc(func() {
		stopIntake()
		stopQueue()
		if err := b.Close(context.Background()); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	t.Cleanup(w.stop)
	return w
}

// client is a caller as any program that speaks NATS.
func (w *world) client(namespaces ...string) (*nats.Conn, bus.Caller) {
	w.t.Helper()
	c, password, err := w.bus.Callers().Create("tester", namespaces)
	if err != nil {
		w.t.Fatal(err)
	}
	nc, err := nats.Connect(w.bus.ListenURL(), nats.UserInfo(c.ID, password), nats.Timeout(time.Minute), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(nc.Close)
	return nc, c
}

// ask makes a request and returns the answer.
func ask(t *testing.T, nc *nats.Conn, m *nats.Msg) *nats.Msg {
	t.Helper()
	out, err := nc.RequestMsg(m, time.Minute)
	if err != nil {
		t.Fatalf("%s: %v", m.Subject, err)
	}
	return out
}

// idOf reads the id from an answer that says that the invocation is accepted.
func idOf(t *testing.T, m *nats.Msg) functions.InvocationID {
	t.Helper()
	var a struct {
		ID       functions.InvocationID `json:"id"`
		Location string                 `json:"location"`
	}
	if err := json.Unmarshal(m.Data, &a); err != nil || a.ID == "" || a.Location != "/invocations/"+string(a.ID) || m.Header.Get("Tatami-Invocation-Id") != string(a.ID) {
		t.Fatalf("answer %s, header %v: %v", m.Data, m.Header, err)
	}
	return a.ID
}

func (w *world) ended(id functions.InvocationID) queue.Status {
	w.t.Helper()
	st, err := w.q.Lookup(w.t.Context(), id, time.Minute)
	if err != nil || !st.State.Terminal() {
		w.t.Fatalf("%s: %+v, %v", id, st, err)
	}
	return st
}
