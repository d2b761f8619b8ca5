package live

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
)

// system is a source whose picture the test sets. Each look at it moves it on a little, so that every event carries something.
type system struct {
	mu       sync.Mutex
	asked    int
	overview bus.Overview
	traffic  []Traffic
	queues   map[functions.Ref]Queue
	err      error
	churn    func(s *system)
}

func (s *system) sources() Sources {
	return Sources{
		Overview: func(context.Context) (bus.Overview, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.asked++
			if s.churn != nil {
				s.churn(s)
			}
			// The lists are the reader's own from here on.
			o := s.overview
			o.Instances = append([]bus.InstanceStatus(nil), o.Instances...)
			o.Nodes = append([]bus.NodeStatus(nil), o.Nodes...)
			o.Functions = append([]bus.FunctionStatus(nil), o.Functions...)
			for i := range o.Nodes {
				o.Nodes[i].LastSeen = time.Now()
			}
			return o, s.err
		},
		Traffic: func(context.Context) Gateways {
			s.mu.Lock()
			defer s.mu.Unlock()
			t := append([]Traffic(nil), s.traffic...)
			return Gateways{All: t, Each: []Gateway{{Own: true, Told: true, Functions: t}}}
		},
		Queues:  func() map[functions.Ref]Queue { s.mu.Lock(); defer s.mu.Unlock(); return s.queues },
		Notices: func() []string { return []string{"", "a notice"} },
	}
}

func (s *system) change(f func()) { s.mu.Lock(); defer s.mu.Unlock(); f() }

func (s *system) looks() int { s.mu.Lock(); defer s.mu.Unlock(); return s.asked }

func newSystem(instances int) *system {
	s := &system{overview: bus.Overview{
		Schema: bus.Schema,
		Nodes: []bus.NodeStatus{{ID: "nod_1", NodeState: bus.NodeState{
			Name: "one", Architecture: "amd64", Capacity: functions.Resources{CPU: 4000, Memory: 8 << 30}, Allocatable: functions.Resources{CPU: 3500, Memory: 7 << 30, Instances: 100},
		}}},
		Functions: []bus.FunctionStatus{{Namespace: "default", Function: "hello", Desired: 1, Ready: 1}},
	}, traffic: []Traffic{{Namespace: "default", Function: "hello", Codes: map[string]uint64{"200": 3}}}}
	for i := range instances {
		s.overview.Instances = append(s.overview.Instances, bus.InstanceStatus{Node: "nod_1", InstanceReport: bus.InstanceReport{
			Instance: functions.InstanceID(fmt.Sprintf("ins_%d", i)), Namespace: "default", Function: "hello", State: functions.InstanceReady, Slots: 10,
			Since: noon, Reserved: functions.Resources{CPU: 250, Memory: 192 << 20},
		}})
	}
	s.churn = func(s *system) { s.traffic[0].Requests += 3 }
	return s
}

// start runs a Live on the system behind a real server.
func start(t *testing.T, cfg Config, s *system) (l *Live, url string, stop func()) {
	t.Helper()
	if cfg.Every == 0 {
		cfg.Every = 10 * time.Millisecond
	}
	l, err := New(cfg, s.sources(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/overview", l.ServeOverview)
	mux.HandleFunc("GET /v1/stream", l.ServeStream)
	srv := httptest.NewServer(mux)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(func() { stop(); srv.Close(); http.DefaultTransport.(*http.Transport).CloseIdleConnections() })
	return l, srv.URL, stop
}

// event is one event, or comment, of a stream.
type event struct{ id, name, data, comment string }

type client struct {
	t    *testing.T
	resp *http.Response
	r    *bufio.Reader
}

func connect(t *testing.T, url, last string) *client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/v1/stream", nil)
	if err != nil {
		t.Fatal(err)
	}
	if last != "" {
		req.Header.Set("Last-Event-ID", last)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if got := resp.Header.Get("Content-Type"); resp.StatusCode != 200 || got != "text/event-stream" {
		t.Fatalf("status %d, type %q", resp.StatusCode, got)
	}
	return &client{t, resp, bufio.NewReaderSize(resp.Body, 1<<20)}
}

func (c *client) next() (event, error) {
	var e event
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return e, err
		}
		line = strings.TrimSuffix(line, "\n")
		key, value, _ := strings.Cut(line, ": ")
		switch {
		case line == "":
			if e != (event{}) {
				return e, nil
			}
		case key == "":
			e.comment = value
		case strings.HasPrefix(line, ":"):
			e.comment = strings.TrimSpace(line[1:])
		case key == "id":
			e.id = value
		case key == "event":
			e.name = value
		case key == "data":
			e.data = value
		}
	}
}

func (c *client) want(name string) event {
	c.t.Helper()
	e, err := c.next()
	if err != nil || e.name != name {
		c.t.Fatalf("got %s %s (%v), want a %s", e.name, e.id, err, name)
	}
	return e
}

// replay applies deltas to a snapshot as the page does.
type replay struct {
	s Snapshot
}

func (r *replay) apply(t *testing.T, e event) {
	t.Helper()
	if e.name == "snapshot" {
		r.s = Snapshot{}
		if err := json.Unmarshal([]byte(e.data), &r.s); err != nil {
			t.Fatal(err)
		}
		return
	}
	var d Delta
	if err := json.Unmarshal([]byte(e.data), &d); err != nil {
		t.Fatal(err)
	}
	s := &r.s
	s.ID, s.At, s.Stale, s.Totals = e.id, d.At, d.Stale, d.Totals
	if d.Verdict != nil {
		s.Verdict = *d.Verdict
	}
	if d.Problems != nil {
		s.Problems = *d.Problems
	}
	if d.Notices != nil {
		s.Notices = *d.Notices
	}
	if d.Namespaces != nil {
		s.Namespaces = *d.Namespaces
	}
	if d.Servers != nil {
		s.Servers = *d.Servers
	}
	if d.Pools != nil {
		s.Pools = *d.Pools
	}
	gone := d.Gone
	if gone == nil {
		gone = &Gone{}
	}
	s.Nodes = merge(s.Nodes, d.Nodes, gone.Nodes, func(n Node) functions.NodeID { return n.ID }, nil)
	s.Instances = merge(s.Instances, d.Instances, gone.Instances, func(i Instance) functions.InstanceID { return i.ID }, nil)
	s.Functions = merge(s.Functions, d.Functions, gone.Functions, func(f Function) string { return f.key() }, func(old, now *Function) {
		if now.Spark == nil {
			now.Spark = old.Spark
		}
	})
	for _, p := range d.Points {
		if n := len(s.History.Points); n > 0 && s.History.Points[n-1][0] == p[0] {
			s.History.Points[n-1] = p
		} else {
			s.History.Points = append(s.History.Points, p)
		}
	}
}

func merge[T any, K comparable](have, changed []T, gone []K, key func(T) K, keep func(old, now *T)) []T {
	for _, c := range changed {
		found := false
		for i := range have {
			if key(have[i]) == key(c) {
				if keep != nil {
					keep(&have[i], &c)
				}
				have[i], found = c, true
			}
		}
		if !found {
			have = append(have, c)
		}
	}
	out := have[:0]
	for _, h := range have {
		dead := false
		for _, g := range gone {
			dead = dead || key(h) == g
		}
		if !dead {
			out = append(out, h)
		}
	}
	return out
}

// TestDeltasLeadToTheSnapshot follows a changing system by deltas and compares with what /v1/overview says of the same moment.
func TestDeltasLeadToTheSnapshot(t *testing.T) {
	t.Parallel()
	s := newSystem(3)
	s.queues = map[functions.Ref]Queue{}
	serial := 0
	s.churn = func(s *system) {
		serial++
		s.traffic[0].Requests += uint64(serial % 4)
		in := &s.overview.Instances[serial%len(s.overview.Instances)]
		in.Held = serial % 7
		in.Usage.CPU += functions.Duration(serial) * functions.Duration(time.Millisecond)
		switch serial % 9 {
		case 3:
			s.overview.Instances = append(s.overview.Instances, bus.InstanceStatus{Node: "nod_1", InstanceReport: bus.InstanceReport{
				Instance: functions.InstanceID(fmt.Sprintf("ins_new%d", serial)), Namespace: "default", Function: "zebra", State: functions.InstanceStarting, Since: noon}})
			s.overview.Functions = append(s.overview.Functions[:1:1], bus.FunctionStatus{Namespace: "default", Function: "zebra", Pending: "no node fits"})
		case 6:
			s.overview.Instances = append([]bus.InstanceStatus(nil), s.overview.Instances[:3]...)
			s.overview.Functions = s.overview.Functions[:1:1]
		}
		s.queues = map[functions.Ref]Queue{{Namespace: "default", Name: "hello"}: {Pending: serial % 3, Dead: serial / 20, Oldest: noon}}
	}
	_, url, _ := start(t, Config{}, s)
	c := connect(t, url, "")
	var r replay
	r.apply(t, c.want("snapshot"))
	deltas, same := 0, 0
	for same < 3 {
		e, err := c.next()
		if err != nil {
			t.Fatal(err)
		}
		if e.name == "delta" {
			deltas++
		}
		r.apply(t, e)
		resp, err := http.Get(url + "/v1/overview")
		if err != nil {
			t.Fatal(err)
		}
		var whole Snapshot
		err = json.NewDecoder(resp.Body).Decode(&whole)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		// Go on to that moment, or, if it is past already, look again.
		for before(r.s.ID, whole.ID) {
			e, err := c.next()
			if err != nil {
				t.Fatal(err)
			}
			r.apply(t, e)
			deltas++
		}
		if r.s.ID != whole.ID || deltas < 20 {
			continue
		}
		same++
		if diff := cmp.Diff(whole, r.s); diff != "" {
			t.Fatalf("after %d deltas the stream leads elsewhere than the overview (-overview +stream):\n%s", deltas, diff)
		}
	}
}

// before compares ids of one run.
func before(a, b string) bool {
	var x, y int
	_, _ = fmt.Sscanf(a[strings.Index(a, ".")+1:], "%d", &x)
	_, _ = fmt.Sscanf(b[strings.Index(b, ".")+1:], "%d", &y)
	return x < y
}

func TestResume(t *testing.T) {
	t.Parallel()
	// Slow enough for a client on a loaded machine to come back before what it missed is forgotten.
	_, url, _ := start(t, Config{Every: 300 * time.Millisecond}, newSystem(1))
	c := connect(t, url, "")
	first := c.want("snapshot")
	var last event
	for range 3 {
		e, err := c.next()
		if err != nil {
			t.Fatal(err)
		}
		last = e
	}
	if last.name != "delta" {
		t.Fatalf("the fourth event is a %s", last.name)
	}
	c.resp.Body.Close()
	if e := connect(t, url, last.id).want("delta"); !before(last.id, e.id) {
		t.Errorf("after %s came %s", last.id, e.id)
	}
	for _, id := range []string{"", "nonsense", "otherrun." + strings.Split(first.id, ".")[1], strings.Split(first.id, ".")[0] + ".999999999", strings.Split(first.id, ".")[0] + ".-1"} {
		connect(t, url, id).want("snapshot")
	}
}

func TestWhoLagsGetsASnapshot(t *testing.T) {
	t.Parallel()
	var f feed
	f.init()
	for i := range 100 {
		f.publish(&picture{Snapshot: Snapshot{Schema: Schema, At: noon.Add(time.Duration(i) * time.Second)}}, fmt.Appendf(nil, `{"n":%d}`, i+1))
	}
	for _, c := range []struct {
		seq    uint64
		events int
		name   string
	}{{0, 1, "snapshot"}, {1, 1, "snapshot"}, {68, 1, "snapshot"}, {69, 31, "delta"}, {99, 1, "delta"}, {100, 0, ""}, {101, 1, "snapshot"}} {
		got, seq, _, err := f.after(c.seq)
		if err != nil || seq != 100 || len(got) != c.events || len(got) > 0 && got[0].event != c.name {
			t.Errorf("after %d: %d events up to %d (%v), want %d of kind %q", c.seq, len(got), seq, err, c.events, c.name)
			continue
		}
		for i, m := range got {
			if c.name == "delta" && string(m.data) != fmt.Sprintf(`{"n":%d}`, int(c.seq)+1+i) {
				t.Errorf("after %d: event %d is %s", c.seq, i, m.data)
			}
		}
	}
	// An event that could not be made breaks the chain.
	f.publish(&picture{Snapshot: Snapshot{}}, nil)
	if got, _, _, _ := f.after(100); len(got) != 1 || got[0].event != "snapshot" {
		t.Errorf("over a gap: %+v", got)
	}
}

// TestWhoReadsNothingIsLeft has one client that never reads: others get every event, and its stream ends.
func TestWhoReadsNothingIsLeft(t *testing.T) {
	t.Parallel()
	s := newSystem(3000)
	s.churn = func(s *system) {
		for i := range s.overview.Instances {
			s.overview.Instances[i].Held++
		}
	}
	l, url, _ := start(t, Config{WriteTimeout: 3 * time.Second, Every: 20 * time.Millisecond}, s)
	good := connect(t, url, "")
	good.want("snapshot")
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "GET /v1/stream HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	joined := false
	for n := 0; ; n++ {
		e, err := good.next()
		if err != nil || n > 5000 {
			t.Fatalf("after %d events: %v; %d streams are open", n, err, l.feed.open())
		}
		if e.name == "" {
			continue
		}
		open := l.feed.open()
		joined = joined || open == 2
		if joined && open == 1 {
			return
		}
	}
}

func TestHeartbeat(t *testing.T) {
	t.Parallel()
	_, url, _ := start(t, Config{Every: time.Hour, Heartbeat: 10 * time.Millisecond}, newSystem(1))
	c := connect(t, url, "")
	for {
		e, err := c.next()
		if err != nil {
			t.Fatal(err)
		}
		if e.comment != "" {
			return
		}
	}
}

func TestCompressedStream(t *testing.T) {
	t.Parallel()
	_, url, _ := start(t, Config{}, newSystem(1))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/v1/stream", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept-Encoding", "br, gzip;q=0.5")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.Header.Get("Content-Encoding") != "gzip" {
		t.Fatalf("the encoding is %q", resp.Header.Get("Content-Encoding"))
	}
	zr, err := gzip.NewReader(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	c := &client{t, resp, bufio.NewReader(zr)}
	c.want("snapshot")
	for {
		// The next one comes while the stream is open: each event is flushed.
		e, err := c.next()
		if err != nil {
			t.Fatal(err)
		}
		if e.name == "delta" {
			return
		}
	}
}

func TestTooManyStreams(t *testing.T) {
	t.Parallel()
	_, url, _ := start(t, Config{MaxStreams: 1}, newSystem(1))
	connect(t, url, "").want("snapshot")
	resp, err := http.Get(url + "/v1/stream")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Tatami-Error") != "unavailable" || resp.Header.Get("Retry-After") == "" {
		t.Errorf("status %d, headers %v", resp.StatusCode, resp.Header)
	}
}

func TestTheEndOfRunEndsStreams(t *testing.T) {
	t.Parallel()
	_, url, stop := start(t, Config{}, newSystem(1))
	c := connect(t, url, "")
	c.want("snapshot")
	stop()
	for {
		if _, err := c.next(); err != nil {
			if !errors.Is(err, io.EOF) {
				t.Errorf("the stream ended with %v", err)
			}
			break
		}
	}
	for _, path := range []string{"/v1/overview", "/v1/stream"} {
		resp, err := http.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Tatami-Error") != "draining" {
			t.Errorf("%s after the end: status %d, %v", path, resp.StatusCode, resp.Header)
		}
	}
}

// TestNobodyLooks counts how often the scheduler is asked: seldom while nobody looks, once more for a scrape, once a second for a page.
func TestNobodyLooks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(1)
		l, err := New(Config{}, s.sources(), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.Run(ctx) }()
		time.Sleep(15*time.Minute + time.Millisecond)
		synctest.Wait()
		if n := s.looks(); n < 175 || n > 185 {
			t.Errorf("in 15 minutes without a look the scheduler was asked %d times, want once in 5 s", n)
		}
		if n := len(l.history.points); n != historyLen {
			t.Errorf("the history has %d points, want %d: it goes on while nobody looks", n, historyLen)
		}
		time.Sleep(2500 * time.Millisecond)
		before := s.looks()
		sample, err := l.Sample(ctx)
		if err != nil || !sample.SchedulerUp || len(sample.Functions) != 1 || sample.Functions[0].Codes["200"] != 3 {
			t.Errorf("sample %+v, %v", sample, err)
		}
		if n := s.looks(); n != before+1 {
			t.Errorf("a scrape asked %d times, want once", n-before)
		}
		if err := l.feed.enter(1); err != nil {
			t.Fatal(err)
		}
		before = s.looks()
		time.Sleep(60 * time.Second)
		if n := s.looks() - before; n < 59 || n > 61 {
			t.Errorf("in a minute with a page open the scheduler was asked %d times, want once a second", n)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestSilentScheduler(t *testing.T) {
	t.Parallel()
	s := newSystem(2)
	l, _, _ := start(t, Config{}, s)
	whole := func(ok func(*Snapshot) bool) *Snapshot {
		for {
			got, err := l.Snapshot(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if ok(got) {
				return got
			}
			_, changed, _ := l.feed.latest()
			<-changed
		}
	}
	whole(func(s *Snapshot) bool { return s.Stale == nil && len(s.Instances) == 2 })
	s.change(func() { s.err = errors.New("no responders") })
	// Looking at it asks for it: nobody else does here.
	streamless := func() { _ = l.feed.enter(10) }
	streamless()
	got := whole(func(s *Snapshot) bool { return s.Stale != nil })
	if len(got.Instances) != 2 || len(got.Nodes) != 1 || got.Verdict.Level != LevelBad {
		t.Errorf("without a scheduler: %d instances, %d nodes, %+v; want the last known ones", len(got.Instances), len(got.Nodes), got.Verdict)
	}
	if sample, err := l.Sample(t.Context()); err != nil || sample.SchedulerUp {
		t.Errorf("the metrics say that the scheduler is up (%v)", err)
	}
	s.change(func() { s.err = nil })
	whole(func(s *Snapshot) bool { return s.Stale == nil && s.Verdict.Level == LevelOK })
}

func TestOverviewOverTheBusIsAsked(t *testing.T) {
	t.Parallel()
	if _, err := New(Config{}, Sources{}, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a Live without a source was made")
	}
}

func TestOverviewFrom(t *testing.T) {
	t.Parallel()
	srv, err := server.NewServer(&server.Options{DontListen: true, NoLog: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	defer func() { srv.Shutdown(); srv.WaitForShutdown() }()
	nc, err := nats.Connect("", nats.InProcessServer(srv), nats.Timeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	ask := OverviewFrom(nc)
	if _, err := ask(t.Context()); !errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("without a scheduler: %v", err)
	}
	answer := `{"schema":1,"nodes":[{"id":"nod_1"}]}`
	if _, err := nc.Subscribe(bus.SubjectOverview, func(m *nats.Msg) { _ = m.Respond([]byte(answer)) }); err != nil {
		t.Fatal(err)
	}
	if o, err := ask(t.Context()); err != nil || len(o.Nodes) != 1 || o.Nodes[0].ID != "nod_1" {
		t.Errorf("%+v, %v", o, err)
	}
	for _, answer = range []string{`{"schema":2}`, `no JSON`} {
		if _, err := ask(t.Context()); err == nil {
			t.Errorf("%s was taken", answer)
		}
	}
}
