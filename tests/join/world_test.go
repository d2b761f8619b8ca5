package join

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	mrand "math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/invoke"
	"github.com/tatami-faas/tatami/gateway/remote"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/runtime/sandbox"
	"github.com/tatami-faas/tatami/tests/leaks"
	"github.com/tatami-faas/tatami/worker"
)

func TestMain(m *testing.M) { leaks.VerifyTestMain(m) }

const patience = time.Minute

// parts are what runs until it is told to stop.
type parts struct {
	t     *testing.T
	stops []func()
}

func (p *parts) run(run func(context.Context) error, ready <-chan struct{}) (stop func()) {
	p.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			p.t.Errorf("the end: %v", err)
		}
	})
	p.stops = append(p.stops, stop)
	if ready == nil {
		return stop
	}
	select {
	case <-ready:
	case <-time.After(patience):
		p.t.Fatal("a part is not ready")
	}
	return stop
}

func (p *parts) stop() {
	for _, f := range slices.Backward(p.stops) {
		f()
	}
	p.stops = nil
}

// server is what `tatami up` runs of the way of a request, without a worker of its own.
type server struct {
	parts
	cfg     bus.Config
	lost    time.Duration
	bus     *bus.Bus
	workers *remote.Workers
	invoker *invoke.Invoker
	front   *httptest.Server
	token   string
	// cut ends the sessions, as the end of the process would.
	cut func()
}

func newServer(t *testing.T) *server {
	t.Helper()
	// An address that no other socket gets: its port is free when the server starts again.
	addr := fmt.Sprintf("127.%d.%d.%d:0", 1+mrand.IntN(254), mrand.IntN(255), 1+mrand.IntN(254))
	s := &server{parts: parts{t: t}, cfg: bus.Config{DataDir: t.TempDir(), Listen: addr}, lost: patience}
	s.start()
	t.Cleanup(s.stop)
	return s
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func (s *server) start() {
	s.t.Helper()
	var err error
	if s.bus, err = bus.Open(s.t.Context(), s.cfg, quiet()); err != nil {
		s.t.Fatal(err)
	}
	s.stops = append(s.stops, func() { _ = s.bus.Close(context.Background()) })
	s.cfg.Listen = strings.TrimPrefix(s.bus.ListenURL(), "nats://")
	if s.token, err = bus.ReadToken(filepath.Join(s.cfg.DataDir, bus.WorkerTokenFile)); err != nil {
		s.t.Fatal(err)
	}
	desk := bus.NewDesk(s.bus, quiet())
	s.run(desk.Run, desk.Ready())
	s.workers = remote.New(remote.Config{Node: s.bus.Identity().Node, LostAfter: s.lost, TLS: s.bus.WorkerTLS}, quiet())
	if s.invoker, err = invoke.New(invoke.Config{Tables: s.workers.Heard}, s.bus, s.workers, quiet()); err != nil {
		s.t.Fatal(err)
	}
	s.workers.Notify(s.invoker.Lose, func(functions.NodeID) { s.invoker.Ask() })
	s.cut = s.run(s.workers.Run, nil)
	s.run(s.invoker.Run, s.invoker.Ready())
	s.front = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, path, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		s.invoker.ServeFunction(w, r, functions.Ref{Namespace: "default", Name: name}, "/"+path)
	}))
	s.front.Config.Protocols = new(http.Protocols)
	s.front.Config.Protocols.SetHTTP1(true)
	s.front.Config.Protocols.SetUnencryptedHTTP2(true)
	s.front.Start()
	s.stops = append(s.stops, s.front.Close)
}

// deploy makes a function whose instances are a handler.
func (s *server) deploy(name string, change func(*functions.Config), nodes ...*node) *functions.Revision {
	s.t.Helper()
	cfg := functions.Config{}.WithDefaults()
	if change != nil {
		change(&cfg)
	}
	rev := functions.Revision{
		Schema: functions.Schema, ID: functions.RevisionID("rev_" + name), Namespace: "default", Function: name, State: functions.RevisionReady, Config: cfg,
		Artifact: functions.Artifact{Digest: "sha256:" + strings.Repeat("0", 64), Name: name},
	}
	if _, err := s.bus.Revisions().Put(s.t.Context(), bus.RevisionKey(rev.Ref(), rev.ID), rev); err != nil {
		s.t.Fatal(err)
	}
	n, err := s.bus.Functions().Put(s.t.Context(), bus.FunctionKey(rev.Ref()), functions.Function{Schema: functions.Schema, Namespace: "default", Name: name, Live: rev.ID})
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.invoker.WaitApplied(s.t.Context(), n); err != nil {
		s.t.Fatal(err)
	}
	for _, n := range nodes {
		n.begin(s, &rev)
	}
	return &rev
}

// get calls a function and returns the status and the body.
func (s *server) get(path string) (int, string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", s.front.URL+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	resp, err := s.front.Client().Do(req)
	if err != nil {
		s.t.Error(err)
		return 0, ""
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Error(err)
	}
	return resp.StatusCode, string(b)
}

// node is a worker that joined.
type node struct {
	parts
	dir    string
	driver *driver
	link   *bus.Link
	worker *worker.Worker
	keep   bool
}

func newNode(t *testing.T, s *server, handlers map[string]http.Handler) *node {
	t.Helper()
	n := &node{parts: parts{t: t}, dir: t.TempDir(), driver: &driver{dir: t.TempDir(), handlers: handlers, boxes: map[functions.InstanceID]*box{}}}
	n.start(s)
	t.Cleanup(func() {
		if n.worker != nil {
			n.stop()
		}
		n.driver.end()
	})
	return n
}

func (n *node) start(s *server) {
	n.t.Helper()
	var err error
	if n.link, err = bus.Join(bus.JoinConfig{DataDir: filepath.Join(n.dir, "data"), URL: "nats://" + s.cfg.Listen, Token: s.token}, quiet()); err != nil {
		n.t.Fatal(err)
	}
	n.stops = append(n.stops, func() { n.link.Close(context.Background()) })
	n.worker, err = worker.New(worker.Config{
		Node: n.id(), DataDir: filepath.Join(n.dir, "data"), RunDir: filepath.Join(n.dir, "run"), Listen: "127.0.0.1:0", TLS: n.link.ListenerTLS, KeepInstances: n.keep,
		Capacity: functions.Resources{CPU: 4000, Memory: 8 * functions.GiB}, ReportEvery: 50 * time.Millisecond, DrainTimeout: 100 * time.Millisecond,
	}, n.driver, n.link, quiet())
	if err != nil {
		n.t.Fatal(err)
	}
	n.run(n.worker.Run, n.worker.Ready())
}

func (n *node) id() functions.NodeID { return n.link.Identity().Node }

// begin starts an instance of the revision and waits until it is ready.
func (n *node) begin(s *server, rev *functions.Revision) functions.InstanceID {
	n.t.Helper()
	id := functions.NewInstanceID()
	n.command(s, id, bus.ActionStart, rev)
	n.until("the instance is ready", func() bool {
		i := slices.IndexFunc(n.worker.Instances(), func(r bus.InstanceReport) bool { return r.Instance == id })
		return i >= 0 && n.worker.Instances()[i].State == functions.InstanceReady
	})
	return id
}

func (n *node) command(s *server, id functions.InstanceID, a bus.Action, rev *functions.Revision) {
	n.t.Helper()
	c := bus.Command{Envelope: bus.Envelope{Schema: bus.Schema, Node: n.id(), Instance: id, Epoch: bus.Epoch}, Action: a, Revision: rev, Asked: time.Now()}
	if err := bus.Publish(s.bus, bus.CommandSubject(n.id()), c); err != nil {
		n.t.Fatal(err)
	}
}

// held counts the slots in use on the node.
func (n *node) held() int {
	sum := 0
	for _, i := range n.worker.Instances() {
		sum += i.Held
	}
	return sum
}

// until waits for what another process would see only by looking.
func (p *parts) until(what string, cond func() bool) {
	p.t.Helper()
	for over := time.Now().Add(patience); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(over) {
			p.t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// driver keeps the sandbox contract with servers of this process, whose handler is named by the artifact.
type driver struct {
	dir      string
	handlers map[string]http.Handler

	mu    sync.Mutex
	boxes map[functions.InstanceID]*box
}

func (d *driver) Prepare(_ context.Context, a functions.Artifact) (sandbox.Image, error) {
	return sandbox.Image{Digest: a.Digest}, nil
}
func (d *driver) Prepared() []string                   { return nil }
func (d *driver) Lacks() map[functions.Feature]string  { return nil }
func (d *driver) Forget(context.Context, string) error { return nil }
func (d *driver) Release(string)                       {}
func (d *driver) Close() error                         { return nil }

func (d *driver) Create(_ context.Context, s sandbox.Spec) (sandbox.Sandbox, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	b := &box{driver: d, addr: l.Addr().String(), done: make(chan struct{})}
	b.info = sandbox.Info{ID: s.ID, Record: s.Record, PID: 1, Created: time.Now(), Stdout: filepath.Join(d.dir, string(s.ID)+".out"), Stderr: filepath.Join(d.dir, string(s.ID)+".err")}
	for _, f := range []string{b.info.Stdout, b.info.Stderr} {
		if err := os.WriteFile(f, nil, 0o600); err != nil {
			return nil, err
		}
	}
	b.server = &http.Server{Handler: d.handlers[s.Artifact.Name], Protocols: new(http.Protocols)}
	b.server.Protocols.SetHTTP1(true)
	b.server.Protocols.SetUnencryptedHTTP2(true)
	go func() { _ = b.server.Serve(l) }()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.boxes[s.ID] = b
	return b, nil
}

func (d *driver) List(context.Context) ([]sandbox.Sandbox, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []sandbox.Sandbox
	for _, b := range d.boxes {
		out = append(out, b)
	}
	return out, nil
}

func (d *driver) end() {
	boxes, _ := d.List(context.Background())
	for _, b := range boxes {
		_ = b.Stop(context.Background(), 0)
	}
}

type box struct {
	driver *driver
	info   sandbox.Info
	addr   string
	server *http.Server
	once   sync.Once
	done   chan struct{}
}

func (b *box) Info() sandbox.Info { return b.info }
func (b *box) Dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", b.addr)
}
func (b *box) AwaitListening(context.Context) error { return nil }
func (b *box) Exec(_ context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) (int, error) {
	in, err := io.ReadAll(stdin)
	fmt.Fprintf(stdout, "%v %d", args, len(in))
	fmt.Fprint(stderr, "err")
	return 7, err
}
func (b *box) Freeze(context.Context) error { return nil }

func (b *box) Thaw() error { return nil }

func (b *box) Reclaim(context.Context) (int64, error) { return 0, nil }

func (b *box) Stats(context.Context) (functions.Usage, error) { return functions.Usage{}, nil }

// exit ends the process.
func (b *box) exit() {
	b.once.Do(func() {
		_ = b.server.Close()
		close(b.done)
	})
}

func (b *box) Stop(context.Context, time.Duration) error {
	b.exit()
	b.driver.mu.Lock()
	defer b.driver.mu.Unlock()
	delete(b.driver.boxes, b.info.ID)
	return nil
}
func (b *box) Done() <-chan struct{} { return b.done }
func (b *box) Exit() functions.Exit  { return functions.Exit{Code: 143} }

// say writes a line to the log of every instance of the node.
func (n *node) say(line string) {
	n.t.Helper()
	boxes, _ := n.driver.List(context.Background())
	for _, b := range boxes {
		f, err := os.OpenFile(b.Info().Stdout, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			n.t.Fatal(err)
		}
		if _, err := io.WriteString(f, line+"\n"); err != nil {
			n.t.Error(err)
		}
		f.Close()
	}
}

// subscribe hands what is said on a subject to a channel.
func subscribe[T any](b *bus.Bus, subject string, to chan<- T) (end func() error, err error) {
	sub, err := b.Conn().Subscribe(subject, func(m *nats.Msg) {
		if v, err := bus.Decode[T](m.Data); err == nil {
			to <- v
		}
	})
	if err != nil {
		return nil, err
	}
	return sub.Unsubscribe, b.Conn().Flush()
}
