package gateway

import (
	"bufio"
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
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/invoke"
	"github.com/tatami-faas/tatami/gateway/queue"
	"github.com/tatami-faas/tatami/internal/bus"
)

// oneWorker has one instance, whose requests go to addr.
type oneWorker struct{ addr string }

func (w oneWorker) Admit(functions.NodeID, functions.InstanceID) error { return nil }
func (w oneWorker) Release(functions.NodeID, functions.InstanceID)     {}
func (w oneWorker) Dial(ctx context.Context, _ functions.NodeID, _ functions.InstanceID) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", w.addr)
}

// The parts together: a request, a queued one and its result, by path and by host; the end of the server in the middle of a stream.
func TestRoad(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.DiscardHandler)
	b, err := bus.Open(t.Context(), bus.Config{DataDir: t.TempDir()}, log)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close(context.Background())
	fn := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/events" {
			w.Header().Set("Content-Type", "text/event-stream")
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			return
		}
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s %s", r.Method, r.RequestURI, r.Header.Get("X-Forwarded-Host"), body)
	}))
	defer fn.Close()
	inv, err := invoke.New(invoke.Config{}, b, oneWorker{fn.Listener.Addr().String()}, log)
	if err != nil {
		t.Fatal(err)
	}
	q, err := queue.New(queue.Config{}, b, inv, log)
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{PublicAddr: "127.0.0.1:0", Domain: "fn.example", DrainTimeout: 200 * time.Millisecond}
	g, err := New(cfg, Public(inv, q, cfg), say("control"), log)
	if err != nil {
		t.Fatal(err)
	}
	var stops []func()
	for _, part := range []struct {
		run   func(context.Context) error
		ready <-chan struct{}
	}{{inv.Run, inv.Ready()}, {q.Run, q.Ready()}, {g.Run, g.Ready()}} {
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- part.run(ctx) }()
		stop := func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
		stops = append(stops, stop)
		select {
		case <-part.ready:
		case <-time.After(time.Minute):
			t.Fatal("a part did not start")
		}
	}
	running := true
	stopAll := func() {
		if running {
			running = false
			for i := len(stops) - 1; i >= 0; i-- {
				stops[i]()
			}
		}
	}
	defer stopAll()
	deployOne(t, b, inv, functions.Config{})

	base := "http://" + g.Addrs().Public
	do := func(method, path, host, body string, set ...string) (*http.Response, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, base+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		for i := 0; i+1 < len(set); i += 2 {
			r.Header.Set(set[i], set[i+1])
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		got, _ := io.ReadAll(resp.Body)
		return resp, string(got)
	}
	defer http.DefaultClient.CloseIdleConnections()
	if resp, got := do("GET", "/readyz", "", ""); resp.StatusCode != 200 {
		t.Errorf("readyz: %s", got)
	}
	if _, got := do("PUT", "/fn/hello/a%2Fb?q=1", "h.example", "x"); got != "PUT /a%2Fb?q=1 h.example x" {
		t.Errorf("by path: %q", got)
	}
	if _, got := do("PUT", "/fn/x", "hello.default.fn.example", "x"); got != "PUT /fn/x hello.default.fn.example x" {
		t.Errorf("by host: %q", got)
	}
	for _, c := range []struct{ method, path, host, want string }{
		{"POST", "/async/hello/a%2Fb?q=1", "h.example", "POST /a%2Fb?q=1 h.example x"},
		{"PATCH", "/fn/hello/y", "h.example", "PATCH /y h.example x"},
		{"PATCH", "/z", "hello.default.fn.example", "PATCH /z hello.default.fn.example x"},
	} {
		resp, got := do(c.method, c.path, c.host, "x", "Prefer", "respond-async")
		if resp.StatusCode != 202 {
			t.Fatalf("%s: %s %s", c.path, resp.Status, got)
		}
		id := resp.Header.Get("Tatami-Invocation-Id")
		resp, got = do("GET", "/invocations/"+id+"?wait=60s", "", "")
		var v queue.Record
		if err := json.Unmarshal([]byte(got), &v); err != nil || resp.StatusCode != 200 {
			t.Fatalf("%s: %s", resp.Status, got)
		}
		if v.State != functions.StateSucceeded || v.Status != 200 || v.Body != c.want || len(v.Attempts) != 1 || string(v.ID) != id {
			t.Errorf("%s: %s", c.path, got)
		}
		if _, got := do("GET", v.BodyLocation, "", ""); got != c.want {
			t.Errorf("%s: raw body %q", c.path, got)
		}
	}
	if resp, _ := do("POST", "/async/nobody", "", ""); resp.StatusCode != 404 || resp.Header.Get("Tatami-Error") != "function-not-found" {
		t.Errorf("async to nobody: %s", resp.Status)
	}
	if resp, _ := do("GET", "/invocations/inv_nothing", "", ""); resp.StatusCode != 404 || resp.Header.Get("Tatami-Error") != "invocation-not-found" {
		t.Errorf("no invocation: %s", resp.Status)
	}

	c, err := net.Dial("tcp", g.Addrs().Public)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "GET /fn/hello/events HTTP/1.1\r\nHost: x\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%v, %v", resp, err)
	}
	stopAll()
	if _, err := io.ReadAll(resp.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a stream that the server's end cut: %v", err)
	}
}

// deployOne stores the function hello, configured so, and tells of its instance.
func deployOne(t *testing.T, b *bus.Bus, inv *invoke.Invoker, fn functions.Config) {
	t.Helper()
	ref := functions.Ref{Namespace: "default", Name: "hello"}
	rev := functions.Revision{Schema: functions.Schema, ID: "rev_x", Namespace: "default", Function: "hello", Config: fn.WithDefaults()}
	if _, err := b.Revisions().Put(t.Context(), bus.RevisionKey(ref, rev.ID), rev); err != nil {
		t.Fatal(err)
	}
	n, err := b.Functions().Put(t.Context(), bus.FunctionKey(ref), functions.Function{Schema: functions.Schema, Namespace: "default", Name: "hello", Live: rev.ID})
	if err != nil {
		t.Fatal(err)
	}
	if err := inv.WaitApplied(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	node := functions.NewNodeID()
	if err := bus.Publish(b, bus.EndpointsSubject(node), &bus.EndpointTable{
		Envelope: bus.Envelope{Schema: bus.Schema, Boot: "x", Node: node, Sequence: 1, Epoch: bus.Epoch}, Full: true,
		Endpoints: []bus.Endpoint{{Instance: functions.NewInstanceID(), Node: node, Namespace: "default", Function: "hello", Revision: rev.ID, Slots: 5}},
	}); err != nil {
		t.Fatal(err)
	}
}
