package invoke_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/http1"
	"github.com/tatami-faas/tatami/gateway/invoke"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/tests/beside"
	"github.com/tatami-faas/tatami/tests/leaks"
)

func TestMain(m *testing.M) {
	beside.Run(6)
	leaks.VerifyTestMain(m)
}

// node is a worker whose instances are servers on the loopback.
type node struct {
	id  functions.NodeID
	bus *bus.Bus

	mu       sync.Mutex
	insts    map[functions.InstanceID]*inst
	sequence uint64
	boot     string
	dials    int
	// ended are the reasons for which instances were to be stopped.
	ended []string
}

// inst is an instance on the node.
type inst struct {
	ep   bus.Endpoint
	addr string
	held int
	peak int
	// refuse makes Admit refuse, dead makes Dial fail.
	refuse, dead bool
}

var errRefused = errors.New("refused")

func (n *node) Admit(_ functions.NodeID, id functions.InstanceID) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	i := n.insts[id]
	if i == nil || i.refuse || i.held >= i.ep.Slots {
		return errRefused
	}
	i.held++
	i.peak = max(i.peak, i.held)
	return nil
}

func (n *node) Release(_ functions.NodeID, id functions.InstanceID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if i := n.insts[id]; i != nil {
		if i.held--; i.held < 0 {
			panic("released more than admitted")
		}
	}
}

func (n *node) Dial(ctx context.Context, _ functions.NodeID, id functions.InstanceID) (net.Conn, error) {
	n.mu.Lock()
	i := n.insts[id]
	n.dials++
	n.mu.Unlock()
	if i == nil || i.dead {
		return nil, errors.New("connection refused")
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", i.addr)
}

func (n *node) held() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	sum := 0
	for _, i := range n.insts {
		sum += i.held
	}
	return sum
}

// publish sends a table; the worker's own bookkeeping is the caller's.
func (n *node) publish(t testing.TB, table bus.EndpointTable) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.publishLocked(t, table)
}

func (n *node) publishLocked(t testing.TB, table bus.EndpointTable) {
	t.Helper()
	n.sequence++
	table.Envelope = bus.Envelope{Schema: bus.Schema, Boot: n.boot, Node: n.id, Sequence: n.sequence, Epoch: bus.Epoch}
	if err := bus.Publish(n.bus, bus.EndpointsSubject(n.id), &table); err != nil {
		t.Error(err)
	}
}

// publishAll sends the node's whole table, as it is then: one that was made before and sent after another would take back what that told.
func (n *node) publishAll(t testing.TB) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	table := bus.EndpointTable{Full: true}
	for _, i := range n.insts {
		table.Endpoints = append(table.Endpoints, i.ep)
	}
	n.publishLocked(t, table)
}

// start makes an instance ready whose requests go to addr.
func (n *node) start(t testing.TB, rev *functions.Revision, addr string, phases functions.Phases) functions.InstanceID {
	t.Helper()
	id := functions.NewInstanceID()
	ep := bus.Endpoint{
		Instance: id, Node: n.id, Namespace: rev.Namespace, Function: rev.Function, Revision: rev.ID, Slots: rev.Config.Concurrency,
		Started: time.Now(), Ready: time.Now(), Phases: phases,
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.insts[id] = &inst{ep: ep, addr: addr}
	n.publishLocked(t, bus.EndpointTable{Endpoints: []bus.Endpoint{ep}})
	return id
}

func (n *node) end(t testing.TB, d bus.Departure) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.insts, d.Instance)
	n.publishLocked(t, bus.EndpointTable{Removed: []bus.Departure{d}})
}

func (n *node) change(id functions.InstanceID, fn func(*inst)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	fn(n.insts[id])
}

// bed is an invoker on a real bus, with one node and a front server that serves /fn/NAME.
type bed struct {
	t     testing.TB
	bus   *bus.Bus
	node  *node
	inv   *invoke.Invoker
	front *httptest.Server
	// instead serves in the place of serve where it is set; the front runs already.
	instead atomic.Pointer[http.HandlerFunc]
}

// put has h serve from now on what is left to net/http.
func (b *bed) put(h http.HandlerFunc) { b.instead.Store(&h) }

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func setup(t testing.TB, cfg invoke.Config) *bed {
	t.Helper()
	b, err := bus.Open(t.Context(), bus.Config{DataDir: t.TempDir()}, quiet())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close(context.Background()) })
	n := &node{id: functions.NewNodeID(), bus: b, insts: map[functions.InstanceID]*inst{}, boot: "one"}
	// A question that is still being answered when the test ends must not meet a closed connection.
	var answering sync.Mutex
	ended := false
	if _, err := b.Conn().Subscribe(bus.SubjectEndpointsWanted, func(*nats.Msg) {
		answering.Lock()
		defer answering.Unlock()
		if !ended {
			n.publishAll(t)
		}
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		answering.Lock()
		defer answering.Unlock()
		ended = true
	})
	inv, err := invoke.New(cfg, b, n, quiet())
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- inv.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ran; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	wait(t, inv.Ready())
	tb := &bed{t: t, bus: b, node: n, inv: inv}
	tb.front = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h := tb.instead.Load(); h != nil {
			(*h)(w, r)
			return
		}
		tb.serve(w, r)
	}))
	tb.front.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	tb.front.Config.Protocols = new(http.Protocols)
	tb.front.Config.Protocols.SetHTTP1(true)
	tb.front.Config.Protocols.SetUnencryptedHTTP2(true)
	// As in the gateway: plain requests do not come to net/http's server.
	plain := http1.New(http1.Config{}, tb.front.Listener, http.HandlerFunc(tb.serve), slog.New(slog.DiscardHandler))
	tb.front.Listener = plain.Rest()
	tb.front.Start()
	t.Cleanup(tb.front.Close)
	served := make(chan error, 1)
	go func() { served <- plain.Serve() }()
	t.Cleanup(func() {
		_ = plain.Shutdown(context.Background())
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return tb
}

func (b *bed) serve(w http.ResponseWriter, r *http.Request) {
	path, _, _ := strings.Cut(r.RequestURI, "?")
	rest := strings.TrimPrefix(path, "/fn/")
	name, below, _ := strings.Cut(rest, "/")
	ref, err := functions.ParseRef(name)
	if err != nil {
		ref = functions.Ref{Name: name}
	}
	b.inv.ServeFunction(w, r, ref, "/"+below)
}

// patience is how long a loaded machine may take for what takes a moment.
const patience = time.Minute

func wait(t testing.TB, ch <-chan struct{}) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(patience):
		t.Fatalf("nothing happened for %s", patience)
	}
}

// deploy stores a function with a live revision; tweak may change its configuration.
func (b *bed) deploy(name string, tweak func(*functions.Config)) *functions.Revision {
	b.t.Helper()
	ref, err := functions.ParseRef(name)
	if err != nil {
		b.t.Fatal(err)
	}
	cfg := functions.Config{}
	if tweak != nil {
		tweak(&cfg)
	}
	cfg = cfg.WithDefaults()
	art := functions.Artifact{Digest: "sha256:" + strings.Repeat("a", 64), Architecture: "amd64"}
	id, err := functions.RevisionIDOf(ref, art, cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	rev := &functions.Revision{Schema: functions.Schema, ID: id, Namespace: ref.Namespace, Function: ref.Name, Artifact: art, Config: cfg, State: functions.RevisionReady}
	if _, err := b.bus.Revisions().Put(b.t.Context(), bus.RevisionKey(ref, id), *rev); err != nil {
		b.t.Fatal(err)
	}
	b.record(functions.Function{Namespace: ref.Namespace, Name: ref.Name, Live: id, Revisions: []functions.RevisionID{id}})
	return rev
}

// record stores a function's record and waits until the routes have it.
func (b *bed) record(f functions.Function) {
	b.t.Helper()
	f.Schema = functions.Schema
	rev, err := b.bus.Functions().Put(b.t.Context(), bus.FunctionKey(f.Ref()), f)
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	if err := b.inv.WaitApplied(ctx, rev); err != nil {
		b.t.Fatal(err)
	}
}

// backend starts a server and an instance of the revision that it answers for.
func (b *bed) backend(rev *functions.Revision, h http.HandlerFunc) functions.InstanceID {
	b.t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.Start()
	b.t.Cleanup(s.Close)
	return b.node.start(b.t, rev, s.Listener.Addr().String(), functions.Phases{})
}

// rawBackend starts an instance whose connections go to handle, one goroutine each.
func (b *bed) rawBackend(rev *functions.Revision, handle func(net.Conn)) functions.InstanceID {
	b.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			wg.Go(func() {
				defer c.Close()
				handle(c)
			})
		}
	})
	b.t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, c := range conns {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return b.node.start(b.t, rev, l.Addr().String(), functions.Phases{})
}

// do makes a request on a connection of its own and reads the whole answer.
func (b *bed) do(method, path string, body io.Reader, set ...string) (*http.Response, string) {
	b.t.Helper()
	r, err := http.NewRequestWithContext(b.t.Context(), method, b.front.URL+path, body)
	if err != nil {
		b.t.Fatal(err)
	}
	for i := 0; i+1 < len(set); i += 2 {
		r.Header.Add(set[i], set[i+1])
	}
	tr := &http.Transport{DisableCompression: true}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr, Timeout: patience}).Do(r)
	if err != nil {
		b.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatalf("%s %s: body: %v", method, path, err)
	}
	return resp, string(got)
}

// wantFault checks that the platform answered, with the code and its status, and that the text says what it should.
func (b *bed) wantFault(resp *http.Response, body, code string, status int, says ...string) {
	b.t.Helper()
	if resp.StatusCode != status || resp.Header.Get("Tatami-Error") != code {
		b.t.Errorf("%d with Tatami-Error %q, want %d with %q: %s", resp.StatusCode, resp.Header.Get("Tatami-Error"), status, code, body)
	}
	for _, s := range says {
		if !strings.Contains(body, s) {
			b.t.Errorf("the answer lacks %q: %s", s, body)
		}
	}
}

// counted waits until the figures of the only function have come to what is wanted: a caller may have its answer, and the slot be free, a moment
// before the call is counted.
func (b *bed) counted(what string, as func(invoke.FunctionStats) bool) {
	b.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		all := b.inv.Stats()
		if len(all) == 1 && as(all[0]) {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("not counted: %s; but %+v", what, all)
		}
	}
}

// idle waits until no slot is held any more: every way out gives its slot back.
func (b *bed) idle() {
	b.t.Helper()
	deadline := time.Now().Add(patience)
	for b.node.held() > 0 {
		if time.Now().After(deadline) {
			b.t.Fatalf("%d slots are still held", b.node.held())
		}
		time.Sleep(time.Millisecond)
	}
}
