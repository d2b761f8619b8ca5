package invoke_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/invoke"
)

// raw sends bytes to the front and returns the connection.
func (b *bed) raw(request string) (net.Conn, *bufio.Reader) {
	b.t.Helper()
	c, err := net.Dial("tcp", b.front.Listener.Addr().String())
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, request); err != nil {
		b.t.Fatal(err)
	}
	return c, bufio.NewReader(c)
}

// recorder is an instance that keeps the bytes of every request head and answers 200.
func (b *bed) recorder(rev *functions.Revision) <-chan string {
	got := make(chan string, 100)
	b.rawBackend(rev, func(c net.Conn) {
		br := bufio.NewReader(c)
		for {
			var head strings.Builder
			for {
				line, err := br.ReadString('\n')
				head.WriteString(line)
				if err != nil {
					return
				}
				if line == "\r\n" {
					break
				}
			}
			got <- head.String()
			if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"); err != nil {
				return
			}
		}
	})
	return got
}

// What could be read as two requests, or be framed in two ways, reaches no function; what passes is framed anew and names each of the
// platform's headers once.
func TestSmuggling(t *testing.T) {
	t.Parallel()
	b := setup(t, invoke.Config{})
	got := b.recorder(b.deploy("hello", nil))
	const line = "POST /fn/hello/ HTTP/1.1\r\nHost: x\r\n"
	for _, head := range []string{
		line + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
		line + "Content-Length: 5, 5\r\n\r\nhello",
		line + "Content-Length: +5\r\n\r\nhello",
		line + "Content-Length: -1\r\n\r\n",
		line + "Transfer-Encoding: gzip\r\n\r\nhello",
		line + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		line + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
		line + "X-A : b\r\n\r\n",
		line + "X-\x00: b\r\n\r\n",
		line + "X-A: b\x00c\r\n\r\n",
		"POST /fn/hello/ HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
		"POST /fn/hello/ HTTP/1.1\r\n\r\n",
		"GET /fn/hello/\tx HTTP/1.1 x\r\nHost: x\r\n\r\n",
		"GET /fn/hello/\x01 HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		_, br := b.raw(head)
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Errorf("%q: %v", head, err)
			continue
		}
		if resp.StatusCode < 400 || resp.StatusCode > 501 {
			t.Errorf("%q: %s", head, resp.Status)
		}
		resp.Body.Close()
	}
	select {
	case head := <-got:
		t.Fatalf("a request got through: %q", head)
	default:
	}

	// Both framings: chunked wins, and the length does not reach the function.
	_, br := b.raw(line + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
	if resp, err := http.ReadResponse(br, nil); err == nil {
		resp.Body.Close()
	}
	if head := <-got; strings.Contains(head, "Content-Length") || strings.Count(head, "Transfer-Encoding: chunked") != 1 {
		t.Errorf("both framings arrive as %q", head)
	}
	b.idle()
}

func TestConnectionNamesHeaders(t *testing.T) {
	t.Parallel()
	b := setup(t, invoke.Config{})
	got := b.recorder(b.deploy("hello", nil))
	_, br := b.raw("GET /fn/hello/ HTTP/1.1\r\nHost: x\r\nConnection: close, X-Forwarded-For, forwarded, Host, Content-Length, tatami-invocation-id, Cookie, , X-A\r\n" +
		"Connection: X-B\r\nX-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nCookie: a=b\r\nX-A: 1\r\nX-B: 2\r\nX-C: 3\r\nContent-Length: 0\r\n\r\n")
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	head := <-got
	for _, want := range []string{"\r\nHost: x\r\n", "\r\nX-Forwarded-For: 127.0.0.1\r\n", "\r\nForwarded: for=127.0.0.1;host=\"x\";proto=http\r\n", "\r\nX-C: 3\r\n", "\r\nTatami-Invocation-Id: inv_"} {
		if strings.Count(head, want) != 1 {
			t.Errorf("%q is not there once", want)
		}
	}
	for _, bad := range []string{"6.6.6.6", "Cookie", "X-A:", "X-B:", "Connection:"} {
		if strings.Contains(head, bad) {
			t.Errorf("%q is there", bad)
		}
	}
	if t.Failed() {
		t.Logf("%q", head)
	}
}

func TestOldClients(t *testing.T) {
	t.Parallel()
	b := setup(t, invoke.Config{})
	b.backend(b.deploy("hello", nil), func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(103)
		_, _ = io.WriteString(w, r.Host)
		w.(http.Flusher).Flush()
		_, _ = io.WriteString(w, " end")
	})
	_, br := b.raw("GET /fn/hello/ HTTP/1.0\r\n\r\n")
	all, err := io.ReadAll(br)
	if err != nil || !strings.HasPrefix(string(all), "HTTP/1.0 200") || !strings.HasSuffix(string(all), "\r\n\r\nhello.default end") || strings.Contains(string(all), "chunked") {
		t.Errorf("%v: %q", err, all)
	}
}

func TestInformational(t *testing.T) {
	t.Parallel()
	b := setup(t, invoke.Config{})
	b.backend(b.deploy("hello", nil), func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</a.css>")
		w.WriteHeader(103)
		_, _ = io.WriteString(w, "ok")
	})
	_, br := b.raw("GET /fn/hello/ HTTP/1.1\r\nHost: x\r\n\r\n")
	hint, err := http.ReadResponse(br, nil)
	if err != nil || hint.StatusCode != 103 || hint.Header.Get("Link") != "</a.css>" {
		t.Fatalf("%v %v", hint, err)
	}
	if resp, err := http.ReadResponse(br, nil); err != nil || resp.StatusCode != 200 {
		t.Errorf("%v %v", resp, err)
	}
}

func TestExpectContinue(t *testing.T) {
	t.Parallel()
	b := setup(t, invoke.Config{})
	b.backend(b.deploy("hello", nil), func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			w.WriteHeader(401)
			return
		}
		body, err := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %v", body, err)
	})
	const rest = " HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
	c, br := b.raw("POST /fn/hello/yes" + rest)
	if resp, err := http.ReadResponse(br, nil); err != nil || resp.StatusCode != 100 {
		t.Fatalf("%v %v", resp, err)
	}
	_, _ = io.WriteString(c, "hello")
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := io.ReadAll(resp.Body); string(got) != "hello <nil>" {
		t.Errorf("%q", got)
	}
	// A function that does not want the body says so before the client sends it.
	_, br = b.raw("POST /fn/hello/no" + rest)
	if resp, err := http.ReadResponse(br, nil); err != nil || resp.StatusCode != 401 {
		t.Errorf("%v %v", resp, err)
	}
	b.idle()
}

func TestWebSocket(t *testing.T) {
	t.Parallel()
	b := setup(t, invoke.Config{})
	const limit, idle = time.Second, 3 * time.Second
	rev := b.deploy("ws", func(c *functions.Config) {
		c.Timeout = functions.Duration(limit)
		c.IdleTimeout = functions.Duration(idle)
	})
	ended := make(chan error, 10)
	b.backend(rev, func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"echo"}})
		if err != nil {
			return
		}
		defer c.CloseNow()
		c.SetReadLimit(1 << 20)
		for {
			typ, msg, err := c.Read(context.Background())
			if err != nil {
				ended <- err
				return
			}
			if err := c.Write(context.Background(), typ, msg); err != nil {
				return
			}
		}
	})
	url := "ws" + strings.TrimPrefix(b.front.URL, "http") + "/fn/ws/socket"
	dial := func() *websocket.Conn {
		c, resp, err := websocket.Dial(t.Context(), url, &websocket.DialOptions{Subprotocols: []string{"echo"}})
		if err != nil {
			t.Fatal(err)
		}
		if c.Subprotocol() != "echo" || resp.Header.Get("Tatami-Invocation-Id") == "" {
			t.Errorf("%v", resp.Header)
		}
		return c
	}
	c := dial()
	for i, begun := 0, time.Now(); time.Since(begun) < 2*limit; i++ {
		// Longer than the timeout all together.
		time.Sleep(100 * time.Millisecond)
		word := strings.Repeat("x", 1+i%6*20_000)
		c.SetReadLimit(1 << 20)
		if err := c.Write(t.Context(), websocket.MessageText, []byte(word)); err != nil {
			t.Fatal(err)
		}
		if _, got, err := c.Read(t.Context()); err != nil || string(got) != word {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
	}
	if b.node.held() != 1 {
		t.Errorf("%d slots are held by an open socket", b.node.held())
	}
	if err := c.Close(websocket.StatusNormalClosure, "bye"); err != nil {
		t.Errorf("the closing handshake: %v", err)
	}
	if err := <-ended; websocket.CloseStatus(err) != websocket.StatusNormalClosure {
		t.Errorf("the function sees %v", err)
	}
	b.idle()

	// A client that vanishes ends it for the function, and an idle socket ends for both.
	c = dial()
	_ = c.CloseNow()
	if err := <-ended; err == nil {
		t.Error("the function did not learn that the client left")
	}
	b.idle()
	// The time counts from the first byte on, which is before the dial returns.
	begun := time.Now()
	c = dial()
	if _, _, err := c.Read(t.Context()); err == nil || time.Since(begun) < idle {
		t.Errorf("an idle socket: %v after %s", err, time.Since(begun))
	}
	<-ended
	b.idle()
	b.counted("two sockets, and one that was idle", func(s invoke.FunctionStats) bool { return s.Codes["101"] == 2 && s.Codes["idle-timeout"] == 1 })
}

// A function that does not change the protocol answers like any other.
func TestUpgradeDeclined(t *testing.T) {
	t.Parallel()
	b := setup(t, invoke.Config{})
	b.backend(b.deploy("hello", nil), func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%q %q", r.Header.Get("Connection"), r.Header.Get("Upgrade"))
	})
	resp, got := b.do("GET", "/fn/hello/", nil, "Connection", "Upgrade", "Upgrade", "websocket")
	if resp.StatusCode != 200 || got != `"Upgrade" "websocket"` {
		t.Errorf("%d %s", resp.StatusCode, got)
	}
	if _, got := b.do("GET", "/fn/hello/", nil, "Connection", "Upgrade, HTTP2-Settings", "Upgrade", "h2c", "HTTP2-Settings", "x"); got != `"" ""` {
		t.Errorf("h2c arrives as %s", got)
	}
	b.idle()
}
