package http1_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tatami-faas/tatami/gateway/http1"
	"github.com/tatami-faas/tatami/tests/leaks"
)

func TestMain(m *testing.M) { leaks.VerifyTestMain(m) }

// start serves the handler and returns the address.
func start(t testing.TB, cfg http1.Config, h http.Handler) (*http1.Server, string) {
	t.Helper()
	return startOn(t, cfg, h, func(l net.Listener) net.Listener { return l })
}

// startOn is start with what on makes of the listener.
func startOn(t testing.TB, cfg http1.Config, h http.Handler, on func(net.Listener) net.Listener) (*http1.Server, string) {
	t.Helper()
	rest := httptest.NewUnstartedServer(h)
	rest.Listener = on(rest.Listener)
	rest.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s := http1.New(cfg, rest.Listener, h, slog.New(slog.DiscardHandler))
	addr := rest.Listener.Addr().String()
	rest.Listener = s.Rest()
	rest.Start()
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	t.Cleanup(func() {
		_ = s.Close()
		_ = s.Shutdown(context.Background())
		rest.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("Serve: %v", err)
		}
	})
	return s, addr
}

// act is a handler that does what its path says.
func act(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	path, _ := strings.CutPrefix(r.URL.Path, "/fn/")
	switch path {
	case "empty":
		return
	case "nothing":
		w.WriteHeader(http.StatusNoContent)
		_, err := io.WriteString(w, "no")
		if !errors.Is(err, http.ErrBodyNotAllowed) {
			panic(err)
		}
		return
	case "unmodified":
		h.Set("Content-Type", "text/plain")
		h.Set("Etag", "1")
		w.WriteHeader(http.StatusNotModified)
		return
	case "odd":
		h["X-Odd"] = []string{"a\r\nb", " c "}
		h["bad name"] = []string{"d"}
		h["x-low"] = []string{"e"}
		w.WriteHeader(599)
		return
	case "hint":
		h.Set("Link", "a")
		w.WriteHeader(http.StatusEarlyHints)
		h.Set("Link", "b")
		w.WriteHeader(http.StatusOK)
		w.WriteHeader(http.StatusTeapot)
		return
	case "chunks":
		for i := range 5 {
			_, _ = io.WriteString(w, strings.Repeat(strconv.Itoa(i), 1<<(3*i)))
			w.(http.Flusher).Flush()
		}
		return
	case "long":
		_, _ = w.Write(bytes.Repeat([]byte("<p>long</p>"), 1<<14))
		return
	case "known":
		h.Set("Content-Length", strconv.Itoa(1<<16))
		for range 1 << 6 {
			_, _ = w.Write(bytes.Repeat([]byte("k"), 1<<10))
		}
		_, err := io.WriteString(w, "too much")
		if !errors.Is(err, http.ErrContentLength) {
			panic(err)
		}
		return
	case "short":
		h.Set("Content-Length", "10")
		_, _ = io.WriteString(w, "four")
		return
	case "trailers":
		h.Set("Trailer", "X-After, Host")
		_, _ = io.WriteString(w, "body")
		h.Set("X-After", "1")
		h.Set(http.TrailerPrefix+"X-Unannounced", "2")
		return
	case "late":
		h["Content-Type"] = nil
		_, _ = io.WriteString(w, "body")
		h.Set(http.TrailerPrefix+"X-Unannounced", "2")
		return
	case "close":
		h.Set("Connection", "close")
	case "abort":
		panic(http.ErrAbortHandler)
	case "aborted":
		_, _ = io.WriteString(w, strings.Repeat("a", 5000))
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	case "ignore":
		_, _ = io.WriteString(w, "your body is not wanted")
		return
	case "closed":
		_ = r.Body.Close()
		_, err := r.Body.Read(make([]byte, 1))
		fmt.Fprint(w, err != nil)
		return
	case "duplex":
		_ = http.NewResponseController(w).EnableFullDuplex()
		_, _ = io.WriteString(w, "early")
		w.(http.Flusher).Flush()
	}
	body, err := io.ReadAll(r.Body)
	fmt.Fprintf(w, "%s %s %s %q %q %d\n", r.Method, r.RequestURI, r.URL, r.Host, r.Header, r.ContentLength)
	fmt.Fprintf(w, "%d bytes %.20q %v", len(body), body, err)
}

// ask sends bytes, ends its side, and returns all answers in a form that can be compared.
func ask(t interface {
	Helper()
	Fatalf(string, ...any)
}, addr string, parts ...string) (answers []string) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatalf("%v", err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	go func() {
		for _, p := range parts {
			if _, err := io.WriteString(c, p); err != nil {
				return
			}
		}
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	br := bufio.NewReader(c)
	for {
		// HEAD is told from the request; the cases send one at most, as their first.
		req := &http.Request{}
		if len(answers) == 0 {
			req.Method, _, _ = strings.Cut(strings.Join(parts, ""), " ")
		}
		resp, err := http.ReadResponse(br, req)
		if err != nil {
			// A connection that is reset counts as one that is closed. Behind the answer to a HEAD there may be the body that a refusal has.
			var op *net.OpError
			if errors.As(err, &op) && op.Timeout() {
				t.Fatalf("after %q: %v", answers, err)
			}
			return answers
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if errors.Is(err, syscall.ECONNRESET) {
			// As above: what was said behind the request was not read. Whether the reader or the writer of the connection is told of a reset is chance.
			err = io.ErrUnexpectedEOF
			if resp.ContentLength < 0 && len(resp.TransferEncoding) == 0 {
				err = nil
			}
		}
		if resp.Header.Get("Date") != "" {
			resp.Header.Set("Date", "now")
		}
		answers = append(answers, fmt.Sprintf("%s %q length %d %q close %v trailer %q\n%d bytes %.600q %v",
			resp.Status, resp.Header, resp.ContentLength, resp.TransferEncoding, resp.Close, resp.Trailer, len(body), body, err))
	}
}

const tail = " HTTP/1.1\r\nHost: x\r\n\r\n"

// conversations are what clients may send on one connection.
func conversations() map[string]string {
	all := map[string]string{
		"head":            "HEAD /fn/chunks" + tail,
		"head of a short": "HEAD /fn/x" + tail,
		"head of nothing": "HEAD /fn/empty" + tail,
		"head, long":      "HEAD /fn/long" + tail,
		"body":            "POST /fn/x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
		"large body":      "PUT /fn/x HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n" + strings.Repeat("b", 300000),
		"broken body":     "POST /fn/x HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\nhello",
		"ignored, then":   "POST /fn/ignore HTTP/1.1\r\nHost: x\r\nContent-Length: 50000\r\n\r\n" + strings.Repeat("b", 50000) + "GET /fn/next" + tail,
		"ignored, large":  "POST /fn/ignore HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n" + strings.Repeat("b", 300000) + "GET /fn/next" + tail,
		"closed, then":    "POST /fn/closed HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhelloGET /fn/next" + tail,
		"duplex":          "POST /fn/duplex HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhelloGET /fn/next" + tail,
		"wants to close":  "GET /fn/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\nGET /fn/next" + tail,
		"pipelined":       strings.Repeat("GET /fn/x"+tail+"POST /fn/y HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi", 50),
		"becomes unusual": "GET /fn/x" + tail + "POST /fn/y HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\nGET /fn/z" + tail,
		"becomes invalid": "GET /fn/x" + tail + "GET /fn/y HTTP/1.1\r\nHost: x\r\nBad Name: 1\r\n\r\n",
		"both framings":   "POST /fn/x HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\nGET /fn/smuggled" + tail,
		"two lengths":     "POST /fn/x HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 31\r\n\r\nGET /fn/smuggled" + tail,
		"bare LF":         "GET /fn/x HTTP/1.1\nHost: x\n\nGET /fn/y" + tail,
		"space at colon":  "POST /fn/x HTTP/1.1\r\nHost: x\r\nContent-Length : 4\r\n\r\nbody",
		"folded":          "GET /fn/x HTTP/1.1\r\nHost: x\r\nX-A: b\r\n c\r\n\r\n",
		"old":             "GET /fn/x HTTP/1.0\r\n\r\n",
		"expect":          "POST /fn/x HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi",
		"half a head":     "GET /fn/x HTTP/1.1\r\nHost: x\r\n",
		"half a second":   "GET /fn/x" + tail + "GET /fn/y HT",
		"nothing":         "",
		"a large head":    "GET /fn/x HTTP/1.1\r\nHost: x\r\nX-A: " + strings.Repeat("a", 20000) + "\r\n\r\nGET /fn/y" + tail,
		"no route":        "GET /x" + tail + "GET /fn/y" + tail,
	}
	for _, path := range []string{
		"x", "empty", "nothing", "unmodified", "odd", "hint", "chunks", "long", "known", "short", "trailers", "late", "close", "abort", "aborted", "%41%2f(b)?c=d&e",
	} {
		all[path] = "GET /fn/" + path + tail + "GET /fn/next" + tail
	}
	return all
}

// pair is the two servers that are compared: ours, which takes what is below /fn/, and net/http's alone.
func pair(t testing.TB) (ours, stock string) {
	takes := func(_, target string) bool { return strings.HasPrefix(target, "/fn/") }
	_, ours = start(t, http1.Config{Takes: takes}, http.HandlerFunc(act))
	s := httptest.NewUnstartedServer(http.HandlerFunc(act))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.Start()
	t.Cleanup(s.Close)
	return ours, s.Listener.Addr().String()
}

// Whatever a client says, it is answered as by net/http alone.
func TestAnswersAsNetHTTP(t *testing.T) {
	t.Parallel()
	ours, stock := pair(t)
	for name, text := range conversations() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want, got := ask(t, stock, text), ask(t, ours, text)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("it differs from net/http (-):\n%s", diff)
			}
			// Byte by byte, as far as that is not too long.
			if len(text) < 200 {
				if diff := cmp.Diff(want, ask(t, ours, strings.Split(text, "")...)); diff != "" {
					t.Errorf("byte by byte it differs from net/http (-):\n%s", diff)
				}
			}
		})
	}
}

// fragments are parts of requests, good and bad, in any order.
var fragments = []string{
	"GET /fn/x HTTP/1.1\r\n", "POST /fn/x HTTP/1.1\r\n", "GET /fn/empty?q HTTP/1.1\r\n", "GET /other HTTP/1.1\r\n", "GET /fn/x HTTP/1.0\r\n", "GET /fn/x HTTP/1.1\n",
	"Host: x\r\n", "Host: x\n", "host:x\r\n", "Content-Length: 0\r\n", "Content-Length: 2\r\n", "Content-Length : 2\r\n", "Content-Length: 02\r\n", "Content-Length: 2,2\r\n",
	"Transfer-Encoding: chunked\r\n", "Transfer-Encoding:\x0bchunked\r\n", "transfer-encoding: identity\r\n", "Connection: close\r\n", "Connection: keep-alive, x-a\r\n",
	"X-A: b\r\n", " folded\r\n", "X-A\r\n", ": c\r\n", "Expect: 100-continue\r\n", "\r\n", "\r\n", "\r\n\r\n", "\n", "\r", "hi", "0\r\n\r\n", "2\r\nhi\r\n0\r\n\r\n", "\x00",
	"GET /fn/y" + tail, "POST /fn/ignore HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi",
}

// Requests made of parts that fit together, or do not.
func TestMadeUpRequests(t *testing.T) {
	t.Parallel()
	ours, stock := pair(t)
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.SampledFrom([]string{"", "GET /fn/x HTTP/1.1\r\nHost: x\r\n", "POST /fn/x HTTP/1.1\r\nHost: x\r\n"}).Draw(t, "begin") +
			strings.Join(rapid.SliceOfN(rapid.SampledFrom(fragments), 0, 8).Draw(t, "parts"), "")
		if diff := cmp.Diff(ask(t, stock, text), ask(t, ours, text)); diff != "" {
			t.Fatalf("%q: it differs from net/http (-):\n%s", text, diff)
		}
	})
}

// FuzzConversation compares the answers to any bytes.
func FuzzConversation(f *testing.F) {
	for _, text := range conversations() {
		if len(text) < 1000 {
			f.Add(text)
		}
	}
	ours, stock := pair(f)
	f.Fuzz(func(t *testing.T, text string) {
		if diff := cmp.Diff(ask(t, stock, text), ask(t, ours, text)); diff != "" {
			t.Fatalf("%q: it differs from net/http (-):\n%s", text, diff)
		}
	})
}
