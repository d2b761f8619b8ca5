package queue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// testDataPath runs every function on one HTTP server, with a bounded number of slots.
type testDataPath struct {
	client *http.Client
	server *url.URL

	mu       sync.Mutex
	revs     map[functions.Ref]*functions.Revision
	leaseErr map[functions.Ref]error
	changed  chan struct{}
	free     int
	backlog  map[functions.Ref]int
	// dial, where set, replaces the round trip.
	trip func(*http.Request) (*http.Response, error)
}

func newDataPath(t testing.TB, slots int, h http.Handler) *testDataPath {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	u, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	return &testDataPath{
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		server: u, free: slots, changed: make(chan struct{}),
		revs: map[functions.Ref]*functions.Revision{}, leaseErr: map[functions.Ref]error{}, backlog: map[functions.Ref]int{},
	}
}

// deploy makes a function known.
func (r *testDataPath) deploy(ref functions.Ref, edit func(*functions.Config)) {
	c := functions.Config{}.WithDefaults()
	if edit != nil {
		edit(&c)
	}
	r.set(func() {
		r.revs[ref] = &functions.Revision{Schema: 1, ID: "rev_test", Namespace: ref.Namespace, Function: ref.Name, Config: c}
	})
}

func (r *testDataPath) set(f func()) {
	r.mu.Lock()
	f()
	close(r.changed)
	r.changed = make(chan struct{})
	r.mu.Unlock()
}

func (r *testDataPath) Lookup(_ context.Context, ref functions.Ref) (*functions.Revision, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if rev := r.revs[ref]; rev != nil {
		return rev, nil
	}
	return nil, fault.New(fault.CodeFunctionNotFound, "there is no function %s", ref)
}

func (r *testDataPath) SetBacklog(ref functions.Ref, n int) {
	r.mu.Lock()
	r.backlog[ref] = n
	r.mu.Unlock()
}

func (r *testDataPath) Lease(ctx context.Context, ref functions.Ref) (Lease, error) {
	for {
		rev, err := r.Lookup(ctx, ref)
		if err != nil {
			return nil, err
		}
		r.mu.Lock()
		if err := r.leaseErr[ref]; err != nil {
			r.mu.Unlock()
			return nil, err
		}
		if r.free > 0 {
			r.free--
			r.mu.Unlock()
			return &testLease{r: r, rev: rev}, nil
		}
		changed := r.changed
		r.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fault.Wrap(fault.CodeStartTimeout, ctx.Err(), "waiting for a slot")
		}
	}
}

type testLease struct {
	r    *testDataPath
	rev  *functions.Revision
	done bool
}

func (l *testLease) RoundTrip(r *http.Request) (*http.Response, error) {
	if l.done {
		return nil, errors.New("the lease was released")
	}
	if l.r.trip != nil {
		return l.r.trip(r)
	}
	r.URL.Host = l.r.server.Host
	resp, err := l.r.client.Do(r)
	if err != nil {
		return nil, fault.Wrap(fault.CodeFunctionCrashed, err, "the instance broke the connection")
	}
	return resp, nil
}

func (l *testLease) Release() {
	if l.done {
		panic("a lease was released twice")
	}
	l.done = true
	l.r.set(func() { l.r.free++ })
}
func (l *testLease) Revision() *functions.Revision  { return l.rev }
func (l *testLease) Instance() functions.InstanceID { return "ins_test" }
func (l *testLease) Cold() bool                     { return false }

// world is a bus, a data path and a queue at work.
type world struct {
	t    testing.TB
	dir  string
	bus  *bus.Bus
	run  *testDataPath
	q    *Queue
	stop func()
}

var hello = functions.Ref{Namespace: "default", Name: "hello"}

func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// start opens the directory and runs a queue on it.
func start(t testing.TB, dir string, run *testDataPath, cfg Config) *world {
	t.Helper()
	return startOn(t, bus.Config{DataDir: dir}, run, cfg)
}

// startPath is start with any data path, on a directory of its own.
func startPath(t testing.TB, run DataPath, cfg Config) *world {
	t.Helper()
	return startOn(t, bus.Config{DataDir: t.TempDir()}, run, cfg)
}

func startOn(t testing.TB, bcfg bus.Config, run DataPath, cfg Config) *world {
	t.Helper()
	b, err := bus.Open(t.Context(), bcfg, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	if cfg.BackoffBase == 0 {
		cfg.BackoffBase, cfg.BackoffMax = 10*time.Millisecond, 20*time.Millisecond
	}
	if cfg.RetryFloor == 0 {
		cfg.RetryFloor = 1000
	}
	if cfg.Drain == 0 {
		cfg.Drain = 5 * time.Second
	}
	q, err := NewOver(cfg, b, run, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- q.Run(ctx) }()
	w := &world{t: t, dir: bcfg.DataDir, bus: b, q: q}
	w.run, _ = run.(*testDataPath)
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := receive(t, done, "Run ends"); err != nil {
			t.Errorf("Run: %v", err)
		}
		if err := b.Close(context.Background()); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	t.Cleanup(w.stop)
	select {
	case <-q.Ready():
	case <-time.After(20 * time.Second):
		t.Fatal("the queue is not ready")
	}
	return w
}

func (w *world) submit(r Request) Receipt {
	w.t.Helper()
	if r.Ref == (functions.Ref{}) {
		r.Ref = hello
	}
	receipt, err := w.q.Submit(w.t.Context(), r)
	if err != nil {
		w.t.Fatalf("submit: %v", err)
	}
	return receipt
}

func (w *world) accept(r Request) functions.InvocationID {
	w.t.Helper()
	return w.submit(r).ID
}

// ends waits for the end of an invocation.
func (w *world) ends(id functions.InvocationID) Status {
	w.t.Helper()
	st, err := w.q.Lookup(w.t.Context(), id, 30*time.Second)
	if err != nil {
		w.t.Fatalf("lookup of %s: %v", id, err)
	}
	if !st.State.Terminal() {
		w.t.Fatalf("%s is %s after the wait: %+v", id, st.State, st)
	}
	return st
}

// receive takes what comes from a channel, or its end.
func receive[T any](t testing.TB, from <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(20 * time.Second):
		t.Fatalf("not so within 20s: %s", what)
		panic("not reached")
	}
}

// hold keeps a function from answering until it may, or nobody waits for the answer any more.
func hold(r *http.Request, end <-chan struct{}) {
	select {
	case <-end:
	case <-r.Context().Done():
	}
}

// until waits for a condition.
func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("not so within 20s: %s", what)
		}
	}
}

// empty waits until the work queue holds nothing: acknowledgements are not waited for.
func (w *world) empty() {
	w.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		info, err := w.bus.Invocations().Info(w.t.Context(), jetstream.WithSubjectFilter(">"))
		if err != nil {
			w.t.Fatal(err)
		}
		if info.State.Msgs == 0 {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("the queue still holds %d messages: %v\n%s", info.State.Msgs, info.State.Subjects, w.standing())
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// standing tells whose hands the messages of the queue are in: this process's, its lanes', or those of the server's consumers.
func (w *world) standing() string {
	var out strings.Builder
	w.q.mu.Lock()
	for id, h := range w.q.held {
		fmt.Fprintf(&out, "held: %s seq %d, delivered again %v, since %v, next %v\n", id, h.seq, h.again, h.since, h.next != nil)
	}
	lanes := slices.Collect(maps.Values(w.q.lanes))
	w.q.mu.Unlock()
	for _, l := range lanes {
		l.mu.Lock()
		fmt.Fprintf(&out, "lane %s: %d in hand, %d slots, backlog %d, holding %d, acquiring %d, waiting for a turn %d, not before %v, puller %+v\n",
			l.ref, len(l.hand), len(l.slots), l.backlog, l.holding, l.acquiring, l.waiting, l.notBefore, l.pull)
		l.mu.Unlock()
		c, err := w.bus.Invocations().Consumer(w.t.Context(), bus.ConsumerName(l.ref))
		if err != nil {
			fmt.Fprintf(&out, "its consumer: %v\n", err)
			continue
		}
		i := c.CachedInfo()
		fmt.Fprintf(&out, "its consumer: delivered %+v, acknowledged %+v, %d not acknowledged, %d delivered again, %d requests wait, %d pending\n",
			i.Delivered, i.AckFloor, i.NumAckPending, i.NumRedelivered, i.NumWaiting, i.NumPending)
	}
	w.q.alarms.mu.Lock()
	defer w.q.alarms.mu.Unlock()
	fmt.Fprintf(&out, "%d alarms\n", len(w.q.alarms.heap))
	return out.String()
}

func (w *world) body(rec *functions.Result) string {
	w.t.Helper()
	r, _, err := w.q.OpenBody(w.t.Context(), rec)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	data, err := io.ReadAll(r)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(data)
}

func wantCode(t *testing.T, err error, code fault.Code) {
	t.Helper()
	if fault.CodeOf(err) != code {
		t.Fatalf("got error %v with code %q, want %q", err, fault.CodeOf(err), code)
	}
}

// calls counts attempts by invocation.
type calls struct {
	mu sync.Mutex
	n  map[string]int
}

func (c *calls) add(r *http.Request) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = map[string]int{}
	}
	c.n[r.Header.Get(headerInvocation)]++
	return c.n[r.Header.Get(headerInvocation)]
}

func (c *calls) of(id functions.InvocationID) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n[string(id)]
}

func echo(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Echo", r.Method+" "+r.RequestURI+" "+r.Header.Get("X-In"))
	w.Header().Set(headerError, "function-crashed")
	_, _ = io.Copy(w, r.Body)
}

func TestAnInvocationRunsOnceAndItsResultIsKept(t *testing.T) {
	t.Parallel()
	run := newDataPath(t, 4, http.HandlerFunc(echo))
	run.deploy(hello, nil)
	w := start(t, t.TempDir(), run, Config{})
	id := w.accept(Request{Method: "PUT", Path: "/a%2Fb/c", Query: "x=1&y", Body: []byte("hi"),
		Header: http.Header{"X-In": {"v"}, "Connection": {"close, x-hop"}, "X-Hop": {"gone"}}})
	st := w.ends(id)
	if st.State != functions.StateSucceeded || len(st.Attempts) != 1 || st.Result.Status != 200 {
		t.Fatalf("got %+v", st)
	}
	if got := w.body(st.Result); got != "hi" {
		t.Errorf("body %q", got)
	}
	if got := http.Header(st.Result.Header).Get("X-Echo"); got != "PUT /a%2Fb/c?x=1&y v" {
		t.Errorf("the function saw %q", got)
	}
	if _, has := st.Result.Header[headerError]; has {
		t.Error("a function's own Tatami-Error was kept")
	}
	w.empty()
	if d := w.q.Depth(hello); d != (Depth{}) {
		t.Errorf("depth %+v", d)
	}
}

func TestWhatFailsIsTriedAgainAndThenDies(t *testing.T) {
	t.Parallel()
	var c calls
	run := newDataPath(t, 4, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := c.add(r)
		switch {
		case strings.HasPrefix(r.URL.Path, "/twice") && n < 3, strings.HasPrefix(r.URL.Path, "/always"):
			w.WriteHeader(503)
		case strings.HasPrefix(r.URL.Path, "/final"):
			w.WriteHeader(422)
			_, _ = io.WriteString(w, "no good")
		}
	}))
	run.deploy(hello, nil)
	w := start(t, t.TempDir(), run, Config{})
	twice, always, final := w.accept(Request{Path: "/twice"}), w.accept(Request{Path: "/always", Body: []byte("load")}), w.accept(Request{Path: "/final"})
	if st := w.ends(twice); st.State != functions.StateSucceeded || len(st.Attempts) != 3 || st.Attempts[0].Status != 503 {
		t.Errorf("twice: %+v", st)
	}
	if st := w.ends(always); st.State != functions.StateDead || len(st.Attempts) != 3 || c.of(always) != 3 {
		t.Errorf("always: %+v", st)
	}
	st := w.ends(final)
	if st.State != functions.StateDead || c.of(final) != 1 || st.Result.Status != 422 || w.body(st.Result) != "no good" {
		t.Errorf("final: %+v", st)
	}
	letter, err := w.q.ShowDead(t.Context(), always)
	if err != nil || string(letter.Invocation.Body) != "load" || len(letter.Invocation.History) != 3 || letter.Reason == "" {
		t.Errorf("dead letter %+v, error %v", letter, err)
	}
	all, err := w.q.Dead(t.Context(), hello, 10)
	if err != nil || len(all) != 2 {
		t.Errorf("%d dead letters, error %v", len(all), err)
	}
	if _, err := w.q.ShowDead(t.Context(), twice); !fault.Is(err, fault.CodeInvocationNotFound) {
		t.Errorf("dead letter of a success: %v", err)
	}
	w.empty()
	if d := w.q.Depth(hello); d.Dead != 2 || d.Pending+d.Running+d.Scheduled != 0 {
		t.Errorf("depth %+v", d)
	}
}
