package invoke_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/invoke"
	"github.com/tatami-faas/tatami/internal/bus"
)

func TestRouteFaults(t *testing.T) {
	t.Parallel()
	b := setup(t, invoke.Config{MaxBody: 1000, MaxHeader: 4096})
	resp, body := b.do("GET", "/fn/nobody", nil)
	b.wantFault(resp, body, "function-not-found", 404, "nobody", "tatami fn ls")
	resp, body = b.do("GET", "/fn/Nobody", nil)
	b.wantFault(resp, body, "invalid-request", 400)
	b.record(functions.Function{Namespace: "default", Name: "coming", Candidate: "rev_x"})
	resp, body = b.do("GET", "/fn/coming", nil)
	b.wantFault(resp, body, "unavailable", 503, "deployed")
	b.record(functions.Function{Namespace: "default", Name: "broken"})
	resp, body = b.do("GET", "/fn/broken", nil)
	b.wantFault(resp, body, "function-not-ready", 502, "tatami rev ls broken")

	b.backend(b.deploy("hello", nil), seen)
	resp, body = b.do("POST", "/fn/hello", strings.NewReader(strings.Repeat("x", 1001)))
	b.wantFault(resp, body, "body-too-large", 413, "1000")
	resp, body = b.do("POST", "/fn/hello", io.MultiReader(strings.NewReader(strings.Repeat("x", 100_000))))
	b.wantFault(resp, body, "body-too-large", 413, "1000")
	resp, body = b.do("GET", "/fn/hello", nil, "X-Long", strings.Repeat("x", 4096))
	b.wantFault(resp, body, "header-too-large", 431)
	if resp, _ := b.do("POST", "/fn/hello", io.MultiReader(strings.NewReader(strings.Repeat("x", 1000)))); resp.StatusCode != 200 {
		t.Errorf("a body of the largest size: %s", resp.Status)
	}

	// Deleted: gone at once.
	if err := b.bus.Functions().Delete(t.Context(), "default.hello"); err != nil {
		t.Fatal(err)
	}
	_, _, err := b.bus.Functions().Get(t.Context(), "default.hello")
	if err == nil {
		t.Fatal("the record is still there")
	}
	for deadline := time.Now().Add(patience); ; {
		if resp, _ = b.do("GET", "/fn/hello", nil); resp.StatusCode == 404 || time.Now().After(deadline) {
			break
		}
	}
	if resp.StatusCode != 404 {
		t.Errorf("a deleted function answers %s", resp.Status)
	}
	b.idle()
}

// A route that no watch has brought yet is read from the store.
func TestRouteMissReadsTheStore(t *testing.T) {
	t.Parallel()
	b := setup(t, invoke.Config{})
	for i := range 20 {
		name := fmt.Sprintf("fn%d", i)
		ref := functions.Ref{Namespace: "default", Name: name}
		rev := functions.Revision{Schema: 1, ID: functions.RevisionID("rev_" + name), Namespace: "default", Function: name, Config: functions.Config{}.WithDefaults()}
		if _, err := b.bus.Revisions().Put(t.Context(), bus.RevisionKey(ref, rev.ID), rev); err != nil {
			t.Fatal(err)
		}
		if _, err := b.bus.Functions().Put(t.Context(), bus.FunctionKey(ref), functions.Function{Schema: 1, Namespace: "default", Name: name, Live: rev.ID}); err != nil {
			t.Fatal(err)
		}
		if got, err := b.inv.Lookup(t.Context(), ref); err != nil || got.ID != rev.ID {
			t.Fatalf("%s: %v, %v", name, got, err)
		}
	}
}

func TestCrash(t *testing.T) {
	t.Parallel()
	b := setup(t, invoke.Config{})
	rev := b.deploy("hello", func(c *functions.Config) { c.Timeout = functions.Duration(patience) })
	var id functions.InstanceID
	id = b.rawBackend(rev, func(c net.Conn) {
		br := bufio.NewReader(c)
		r, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		if r.URL.Path == "/midway" {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
		}
		if r.URL.Path == "/silent" {
			return
		}
		go b.node.end(t, bus.Departure{Instance: id, State: functions.InstanceFailed, Reason: "killed: out of memory (limit 128 MiB)"})
	})
	resp, body := b.do("GET", "/fn/hello/silent", nil)
	b.wantFault(resp, body, "function-bad-response", 502, "closed the connection")
	resp, body = b.do("POST", "/fn/hello/crash", strings.NewReader("x"))
	b.wantFault(resp, body, "function-crashed", 502, "out of memory (limit 128 MiB)", "tatami logs hello")

	id = b.rawBackend(rev, func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
			b.node.end(t, bus.Departure{Instance: id, State: functions.InstanceFailed, Reason: "exited with code 1"})
		}
	})
	r, _ := http.NewRequest("GET", b.front.URL+"/fn/hello/midway", nil)
	resp, err := b.front.Client().Do(r)
	if err == nil {
		_, err = io.ReadAll(resp.Body)
		resp.Body.Close()
	}
	if err == nil {
		t.Error("a part of an answer looks like the whole")
	}
	b.idle()
	b.counted("two crashes and a bad response", func(s invoke.FunctionStats) bool {
		return s.Codes["function-crashed"] == 2 && s.Codes["function-bad-response"] == 1
	})
}

func TestBadResponses(t *testing.T) {
	t.Parallel()
	b := setup(t, invoke.Config{MaxHeader: 8192})
	answer := make(chan string, 1)
	b.rawBackend(b.deploy("hello", func(c *functions.Config) { c.Timeout = functions.Duration(patience) }), func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			_, _ = io.WriteString(c, <-answer)
		}
	})
	for _, bad := range []string{
		"", "nonsense\r\n\r\n", "HTTP/1.1 99 x\r\n\r\n", "HTTP/1.1 2000 x\r\n\r\n", "HTTP/1.1 abc\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nxx",
		"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
		"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
		"HTTP/1.1 200 OK\r\nX-Long: " + strings.Repeat("x", 10_000) + "\r\n\r\n",
		strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 100),
		"HTTP/1.1 200 OK\r\nX-Cut",
	} {
		answer <- bad
		resp, body := b.do("GET", "/fn/hello", nil)
		b.wantFault(resp, body, "function-bad-response", 502)
	}
	// Framing that breaks after the head cuts the client's connection.
	for _, bad := range []string{
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
	} {
		answer <- bad
		_, br := b.raw("GET /fn/hello HTTP/1.1\r\nHost: x\r\n\r\n")
		if resp, err := http.ReadResponse(br, nil); err == nil {
			if _, err = io.ReadAll(resp.Body); err == nil {
				t.Errorf("%q looks complete", bad)
			}
		}
	}
	// An answer without a length ends with its connection.
	answer <- "HTTP/1.0 200 OK\r\n\r\nall of it"
	if resp, body := b.do("GET", "/fn/hello", nil); resp.StatusCode != 200 || body != "all of it" {
		t.Errorf("%d %q", resp.StatusCode, body)
	}
	b.idle()
}

func TestTimeout(t *testing.T) {
	t.Parallel()
	b := setup(t, invoke.Config{})
	cancelled := make(chan struct{}, 10)
	// Within that a request comes to the function, on any machine that is not at a standstill.
	const limit = time.Second
	b.backend(b.deploy("slow", func(c *functions.Config) { c.Timeout = functions.Duration(limit) }), func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/endless" {
			for {
				if _, err := w.Write(make([]byte, 1000)); err != nil {
					break
				}
			}
		}
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
		cancelled <- struct{}{}
	})
	for _, body := range []io.Reader{nil, strings.NewReader("short"), io.MultiReader(strings.NewReader("chunked"))} {
		resp, got := b.do("POST", "/fn/slow", body)
		b.wantFault(resp, got, "function-timeout", 504, "timeout of "+limit.String())
		wait(t, cancelled)
	}
	// A client that sends its body slowly is held to it too.
	c, br := b.raw("POST /fn/slow HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
	_, _ = io.WriteString(c, "x")
	if resp, err := http.ReadResponse(br, nil); err != nil || resp.StatusCode != 504 {
		t.Errorf("%v, %v", resp, err)
	}
	_, br = b.raw("GET /fn/slow/endless HTTP/1.1\r\nHost: x\r\n\r\n")
	resp, err := http.ReadResponse(br, nil)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%v, %v", resp, err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err == nil {
		t.Error("an endless answer that was cut looks complete")
	}
	wait(t, cancelled)
	// A client that does not read is cut as well: its slot comes back.
	b.raw("GET /fn/slow/endless HTTP/1.1\r\nHost: x\r\n\r\n")
	wait(t, cancelled)
	b.idle()
}

// A client that leaves ends its request at the function, and gives the slot back.
func TestClientVanishes(t *testing.T) {
	t.Parallel()
	b := setup(t, invoke.Config{})
	var began, cancelled = make(chan struct{}, 10), make(chan struct{}, 10)
	b.backend(b.deploy("hello", nil), func(w http.ResponseWriter, r *http.Request) {
		began <- struct{}{}
		if r.URL.Path == "/stream" {
			w.(http.Flusher).Flush()
		}
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
		cancelled <- struct{}{}
	})
	for _, head := range []string{
		"GET /fn/hello/ HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /fn/hello/stream HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST /fn/hello/ HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody",
		"POST /fn/hello/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nbody",
		"POST /fn/hello/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n",
	} {
		c, _ := b.raw(head)
		wait(t, began)
		_ = c.Close()
		wait(t, cancelled)
		b.idle()
	}
	// Left in the middle of a short body: the function never sees the request.
	c, _ := b.raw("POST /fn/hello/ HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nbody")
	_ = c.Close()
	waitFor(t, func() bool { return b.inv.Stats()[0].Codes["client-gone"] == 6 })
	b.idle()
}

func waitFor(t *testing.T, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it did not come to that within %s", patience)
		}
	}
}

func TestMalformedBody(t *testing.T) {
	t.Parallel()
	b := setup(t, invoke.Config{})
	b.backend(b.deploy("hello", nil), seen)
	_, br := b.raw("POST /fn/hello/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
	resp, err := http.ReadResponse(br, nil)
	if err != nil || resp.StatusCode != 400 || resp.Header.Get("Tatami-Error") != "invalid-request" {
		t.Errorf("%v, %v", resp, err)
	}
	b.idle()
}

// The instance closes idle connections whenever it likes; no request fails for it that may be sent again, nor one that was not sent.
func TestStaleConnections(t *testing.T) {
	t.Parallel()
	b := setup(t, invoke.Config{})
	var served atomic.Int64
	closed := make(chan struct{}, 100)
	b.rawBackend(b.deploy("hello", nil), func(c net.Conn) {
		// One request a connection, without saying so.
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			served.Add(1)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			_ = c.Close()
			closed <- struct{}{}
		}
	})
	for i := range 50 {
		method, body := "GET", io.Reader(nil)
		if i%2 == 1 {
			// Closed on the other side before: there is no doubt that it was not sent.
			wait(t, closed)
			method, body = "POST", strings.NewReader("x")
		}
		if resp, got := b.do(method, "/fn/hello", body); resp.StatusCode != 200 {
			t.Fatalf("%s %d: %s %s", method, i, resp.Status, got)
		}
		if i%2 == 1 {
			wait(t, closed)
		}
	}
	if served.Load() != 50 {
		t.Errorf("%d requests were served for 50", served.Load())
	}
	b.idle()
}

func TestConnectionsAreKept(t *testing.T) {
	t.Parallel()
	b := setup(t, invoke.Config{})
	b.backend(b.deploy("hello", nil), seen)
	for range 20 {
		b.do("POST", "/fn/hello", strings.NewReader("x"))
		b.do("POST", "/fn/hello", io.MultiReader(strings.NewReader("x")))
		b.do("HEAD", "/fn/hello", nil)
	}
	b.node.mu.Lock()
	defer b.node.mu.Unlock()
	// A caller may have its answer a moment before the connection is back in the pool.
	if b.node.dials > 6 {
		t.Errorf("%d connections for 60 requests one after the other", b.node.dials)
	}
}

// A fresh connection that is refused sends the request to another instance; nobody sees it.
func TestNextInstance(t *testing.T) {
	t.Parallel()
	b := setup(t, invoke.Config{})
	rev := b.deploy("hello", func(c *functions.Config) { c.Concurrency = 1 })
	s := httptest.NewServer(http.HandlerFunc(seen))
	defer s.Close()
	a := b.node.start(t, rev, s.Listener.Addr().String(), functions.Phases{})
	c := b.node.start(t, rev, s.Listener.Addr().String(), functions.Phases{})
	for _, breakIt := range []func(*inst){func(i *inst) { i.dead = true }, func(i *inst) { i.refuse = true }} {
		for _, id := range []functions.InstanceID{a, c} {
			b.node.change(id, breakIt)
			for range 4 {
				if resp, body := b.do("POST", "/fn/hello", strings.NewReader("x")); resp.StatusCode != 200 {
					t.Errorf("%s %s", resp.Status, body)
				}
			}
			b.node.change(id, func(i *inst) { i.dead, i.refuse = false, false })
		}
	}
	// Refused because it has crashed: the request waits for the instance that comes in its place.
	gone := b.deploy("gone", func(c *functions.Config) { c.Concurrency = 1 })
	crashed := b.node.start(t, gone, "127.0.0.1:1", functions.Phases{})
	b.node.change(crashed, func(i *inst) { i.dead = true })
	time.AfterFunc(50*time.Millisecond, func() {
		b.node.end(t, bus.Departure{Instance: crashed, State: functions.InstanceFailed, Reason: "exited with code 1"})
		b.node.start(t, gone, s.Listener.Addr().String(), functions.Phases{})
	})
	if resp, body := b.do("POST", "/fn/gone", strings.NewReader("x")); resp.StatusCode != 200 {
		t.Errorf("after a crash: %s %s", resp.Status, body)
	}
	deaf := b.node.start(t, b.deploy("deaf", nil), "127.0.0.1:1", functions.Phases{})
	b.node.change(deaf, func(i *inst) { i.dead = true })
	resp, body := b.do("GET", "/fn/deaf", nil)
	b.wantFault(resp, body, "function-bad-response", 502, "takes no connections on port 8080")
	b.idle()
}

// The server's end is told as such, before the answer has begun.
func TestServerStops(t *testing.T) {
	t.Parallel()
	b := setup(t, invoke.Config{})
	began := make(chan struct{})
	b.backend(b.deploy("hello", nil), func(w http.ResponseWriter, r *http.Request) {
		close(began)
		<-r.Context().Done()
	})
	ctx, stop := context.WithCancelCause(t.Context())
	w := httptest.NewRecorder()
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.inv.ServeFunction(w, httptest.NewRequest("GET", "/", nil).WithContext(ctx), functions.Ref{Namespace: "default", Name: "hello"}, "/")
	}()
	wait(t, began)
	stop(errors.New("the machine goes down"))
	wait(t, done)
	if w.Code != 503 || w.Header().Get("Tatami-Error") != "draining" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	b.idle()
}
