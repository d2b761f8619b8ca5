package gateway

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/invoke"
	"github.com/tatami-faas/tatami/internal/bus"
)

// countingWorker is a worker with one instance that counts the slots held.
type countingWorker struct {
	oneWorker
	held *atomic.Int64
}

func (w countingWorker) Admit(functions.NodeID, functions.InstanceID) error {
	w.held.Add(1)
	return nil
}
func (w countingWorker) Release(functions.NodeID, functions.InstanceID) { w.held.Add(-1) }

// hostile runs the whole public listener before a function whose connections go to answer. It returns the listener's address and the
// count of slots that are held.
func hostile(t *testing.T, answer func(net.Conn, *http.Request)) (string, *atomic.Int64) {
	t.Helper()
	return hostileWith(t, Config{}, functions.Config{}, answer)
}

// hostileWith is hostile with bounds of the test's own.
func hostileWith(t *testing.T, cfg Config, fn functions.Config, answer func(net.Conn, *http.Request)) (string, *atomic.Int64) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	b, err := bus.Open(t.Context(), bus.Config{DataDir: t.TempDir()}, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close(context.Background()) })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				br := bufio.NewReader(c)
				for {
					r, err := http.ReadRequest(br)
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, r.Body)
					answer(c, r)
				}
			}()
		}
	}()
	t.Cleanup(func() { _ = l.Close() })
	held := &atomic.Int64{}
	inv, err := invoke.New(invoke.Config{}, b, countingWorker{oneWorker{l.Addr().String()}, held}, log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- inv.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	select {
	case <-inv.Ready():
	case <-time.After(20 * time.Second):
		t.Fatal("the data path is not ready")
	}
	deployOne(t, b, inv, fn)
	q := &front{ready: make(chan struct{})}
	cfg.PublicAddr, cfg.Domain, cfg.DrainTimeout = "127.0.0.1:0", "fn.example", time.Second
	g, stop := run(t, cfg, Public(inv, q, cfg), say("control"))
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return g.Addrs().Public, held
}

// healthy checks that every slot came back and that the next request on another connection is served.
func healthy(t *testing.T, addr string, held *atomic.Int64) {
	t.Helper()
	awaitHeld(t, held, 0)
	// Other attacks go on beside: on a loaded machine a request may run out of its time for their sake, and is made again.
	status := 0
	for range 10 {
		if status, _ = exchange(t, addr, "GET /fn/hello/next HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); status != http.StatusGatewayTimeout {
			break
		}
	}
	if status != http.StatusOK {
		t.Errorf("the next request: %d", status)
	}
}

// exchange sends bytes and reads one answer; 0 where the connection ended without one.
func exchange(t *testing.T, addr, request string) (int, http.Header) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = io.WriteString(c, request)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, nil
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	return resp.StatusCode, resp.Header
}

func sayOK(c net.Conn, _ *http.Request) {
	_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
}

// What a client may send on a socket: each gets its answer, and harms nobody.
func TestHostileRequests(t *testing.T) {
	t.Parallel()
	addr, held := hostile(t, sayOK)
	const post = "POST /fn/hello HTTP/1.1\r\nHost: x\r\n"
	for name, c := range map[string]struct {
		request string
		status  int
		code    string
	}{
		"two lengths":           {post + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx", 400, ""},
		"unknown coding":        {post + "Transfer-Encoding: xchunked\r\n\r\n", 501, ""},
		"coding twice":          {post + "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 501, ""},
		"space before colon":    {post + "Content-Length : 1\r\n\r\nx", 400, ""},
		"broken chunk":          {post + "Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400, "invalid-request"},
		"no host":               {"GET /fn/hello HTTP/1.1\r\n\r\n", 400, ""},
		"two hosts":             {"GET /fn/hello HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400, ""},
		"long target":           {"GET /fn/hello?" + strings.Repeat("a", 200<<10) + " HTTP/1.1\r\nHost: x\r\n\r\n", 431, ""},
		"long header":           {"GET /fn/hello HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("a", 80<<10) + "\r\n\r\n", 431, "header-too-large"},
		"absolute form":         {"GET http://elsewhere/fn/hello HTTP/1.1\r\nHost: x\r\n\r\n", 200, ""},
		"asterisk":              {"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 200, ""},
		"asterisk on a host":    {"OPTIONS * HTTP/1.1\r\nHost: hello.default.fn.example\r\n\r\n", 200, ""},
		"connect":               {"CONNECT inside:22 HTTP/1.1\r\nHost: inside:22\r\n\r\n", 404, "not-found"},
		"connect on a host":     {"CONNECT hello.default.fn.example:80 HTTP/1.1\r\nHost: hello.default.fn.example:80\r\n\r\n", 400, "invalid-request"},
		"host of nobody":        {"GET / HTTP/1.1\r\nHost: nobody.default.fn.example\r\n\r\n", 404, "function-not-found"},
		"host with a slash":     {"GET / HTTP/1.1\r\nHost: a/b.default.fn.example\r\n\r\n", 400, ""},
		"escaped slash in name": {"GET /fn/hel%2flo HTTP/1.1\r\nHost: x\r\n\r\n", 400, "invalid-request"},
		"dots":                  {"GET /fn/../v1/status HTTP/1.1\r\nHost: x\r\n\r\n", 400, "invalid-request"},
	} {
		t.Run(name, func(t *testing.T) {
			status, header := exchange(t, addr, c.request)
			if status != c.status || header.Get("Tatami-Error") != c.code {
				t.Errorf("%d with Tatami-Error %q, want %d with %q", status, header.Get("Tatami-Error"), c.status, c.code)
			}
			healthy(t, addr, held)
		})
	}

	// Requests in a row on one connection are answered in their order.
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	const many = 50
	for i := range many {
		path := "/fn/hello"
		if i%2 == 1 {
			path = "/nothing"
		}
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path)
	}
	br := bufio.NewReader(c)
	for i := range many {
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		if want := []int{200, 404}[i%2]; resp.StatusCode != want {
			t.Errorf("answer %d: %d, want %d", i, resp.StatusCode, want)
		}
		_ = resp.Body.Close()
	}
	healthy(t, addr, held)
}

// A function cannot make a second answer, or a header of the platform's, out of what it says in one.
func TestHostileAnswers(t *testing.T) {
	t.Parallel()
	addr, held := hostile(t, func(c net.Conn, r *http.Request) {
		answer := "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"
		switch r.URL.Path {
		case "/split":
			answer += "X-A: a\rTatami-Error: forged\r\n"
		case "/second":
			answer += "Tatami-Error: forged\r\nTatami-Invocation-Id: forged\r\n"
		}
		_, _ = io.WriteString(c, answer+"\r\nok")
		if r.URL.Path == "/second" {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nX-Second: yes\r\nContent-Length: 6\r\n\r\nsecond")
		}
	})
	for range 3 {
		status, header := exchange(t, addr, "GET /fn/hello/split HTTP/1.1\r\nHost: x\r\n\r\n")
		if status != 502 || header.Get("Tatami-Error") != "function-bad-response" {
			t.Errorf("a line's end in a value: %d %v", status, header)
		}
		healthy(t, addr, held)
		// What follows an answer belongs to no request.
		status, header = exchange(t, addr, "GET /fn/hello/second HTTP/1.1\r\nHost: x\r\n\r\n")
		if status != 200 || header.Get("Tatami-Error") != "" || header.Get("X-Second") != "" || header.Get("Content-Length") != "2" ||
			!strings.HasPrefix(header.Get("Tatami-Invocation-Id"), "inv_") {
			t.Errorf("two answers to one request: %d %v", status, header)
		}
		healthy(t, addr, held)
	}
}

// Streams that are opened and reset at once hold no slot and no goroutine.
func TestRapidReset(t *testing.T) {
	t.Parallel()
	addr, held := hostile(t, sayOK)
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = io.WriteString(c, http2.ClientPreface)
	f := http2.NewFramer(c, c)
	_ = f.WriteSettings()
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, h := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "x"}, {":path", "/fn/hello/slow"}} {
		_ = enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = io.Copy(io.Discard, c)
	}()
	sent := 0
	for id := uint32(1); id < 20_000; id += 2 {
		if f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true}) != nil ||
			f.WriteRSTStream(id, http2.ErrCodeCancel) != nil {
			break
		}
		sent++
	}
	if sent == 0 {
		t.Error("nothing was sent")
	}
	_ = c.Close()
	<-read
	healthy(t, addr, held)
}
