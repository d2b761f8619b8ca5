package invoke_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/invoke"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

func h2c(c *functions.Config) { c.Protocol = functions.ProtocolH2C }

func onlyH2() *http.Protocols {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	return p
}

// backendH2 starts an instance that speaks HTTP/2 in clear text and nothing else.
func (b *bed) backendH2(rev *functions.Revision, h http.HandlerFunc) functions.InstanceID {
	b.t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.Config.Protocols = onlyH2()
	s.Start()
	b.t.Cleanup(s.Close)
	return b.node.start(b.t, rev, s.Listener.Addr().String(), functions.Phases{})
}

// clients are one that speaks HTTP/1 and one that speaks HTTP/2 to the gateway.
func clients(t *testing.T) map[string]*http.Client {
	t.Helper()
	one, two := &http.Transport{DisableCompression: true}, &http.Transport{DisableCompression: true, Protocols: onlyH2()}
	t.Cleanup(one.CloseIdleConnections)
	t.Cleanup(two.CloseIdleConnections)
	return map[string]*http.Client{"http1": {Transport: one, Timeout: patience}, "h2c": {Transport: two, Timeout: patience}}
}

// A function over HTTP/2 sees what one over HTTP/1 sees, whatever its caller speaks.
func TestH2RequestPasses(t *testing.T) {
	t.Parallel()
	b := setup(t, invoke.Config{})
	b.backendH2(b.deploy("hello", h2c), func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 {
			t.Errorf("the request came over %s", r.Proto)
		}
		seen(w, r)
	})
	for name, client := range clients(t) {
		do := func(method, path string, body io.Reader, set ...string) (*http.Response, string) {
			r, err := http.NewRequestWithContext(t.Context(), method, b.front.URL+path, body)
			if err != nil {
				t.Fatal(err)
			}
			for i := 0; i+1 < len(set); i += 2 {
				r.Header.Add(set[i], set[i+1])
			}
			resp, err := client.Do(r)
			if err != nil {
				t.Fatalf("%s: %s %s: %v", name, method, path, err)
			}
			defer resp.Body.Close()
			got, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatalf("%s: %s %s: %v", name, method, path, err)
			}
			return resp, string(got)
		}
		for _, m := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "BREW"} {
			if _, got := do(m, "/fn/hello/x", nil); !strings.HasPrefix(got, m+" /x host=") {
				t.Errorf("%s: %s arrives as %q", name, m, got)
			}
		}
		for _, path := range []string{
			"/", "//", "//a/b", "/a%2Fb", "/a%2fb%20c", "/..%2f", "/a//b", "/a/./b/../c", "/%E2%82%AC", "/a;b=c", "/a+b", "/?", "/?x=1&x=2", "/a?x=%20;y&&", "/a?b?c",
		} {
			if _, got := do("GET", "/fn/hello"+path, nil); !strings.HasPrefix(got, "GET "+path+" host=") {
				t.Errorf("%s: %s arrives as %q", name, path, got)
			}
		}
		for _, size := range []int{0, 1, 5000, 64<<10 + 1, 3_000_000} {
			body := strings.Repeat("x", size)
			if _, got := do("POST", "/fn/hello", strings.NewReader(body)); !strings.Contains(got, fmt.Sprintf("len=%d te=[] body=%s\n", size, body)) {
				t.Errorf("%s: a body of %d arrives as %.100q", name, size, got)
			}
			if _, got := do("POST", "/fn/hello", io.MultiReader(strings.NewReader(body))); !strings.Contains(got, "te=[] body="+body+"\n") {
				t.Errorf("%s: a body of %d without its length arrives as %.100q", name, size, got)
			}
		}
		_, got := do("POST", "/fn/hello", strings.NewReader("x"), "Accept", "a", "Accept", "b", "X-Own", "", "Te", "trailers", "Proxy-Authorization", "secret",
			"Tatami-Invocation-Id", "forged", "X-Forwarded-For", "1.2.3.4", "Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
		for _, want := range []string{
			"Accept: a\n", "Accept: b\n", "X-Own: \n", "Te: trailers\n", "X-Forwarded-For: 1.2.3.4, 127.0.0.1\n", "X-Forwarded-Proto: http\n",
			"Forwarded: for=127.0.0.1;host=", "Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\n", "Tatami-Invocation-Id: inv_",
		} {
			if !strings.Contains(got, want) {
				t.Errorf("%s: lacks %q: %s", name, want, got)
			}
		}
		if strings.Contains(got, "secret") || strings.Contains(got, "forged") {
			t.Errorf("%s: %s", name, got)
		}
		r, _ := http.NewRequest("POST", b.front.URL+"/fn/hello", io.MultiReader(strings.NewReader("x")))
		r.Trailer = http.Header{"X-Sum": {"42"}, "Tatami-Own": {"forged"}}
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if !strings.Contains(string(body), "trailer X-Sum: [42]") || strings.Contains(string(body), "forged") {
			t.Errorf("%s: trailers: %s", name, body)
		}
	}
	b.idle()
}

func TestH2AnswerPasses(t *testing.T) {
	t.Parallel()
	b := setup(t, invoke.Config{})
	b.backendH2(b.deploy("hello", h2c), func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		switch r.URL.Path {
		case "/hints":
			h.Set("Link", "</a.css>")
			w.WriteHeader(http.StatusEarlyHints)
			fmt.Fprint(w, "ok")
		case "/nothing":
			w.WriteHeader(http.StatusNoContent)
		case "/same":
			h.Set("Etag", `"a"`)
			w.WriteHeader(http.StatusNotModified)
		case "/trailers":
			h.Set("Trailer", "X-Announced")
			h.Set("Tatami-Error", "forged")
			if r.URL.RawQuery == "short" {
				// Its length is said before the trailers.
				fmt.Fprint(w, "x")
			} else {
				fmt.Fprint(w, strings.Repeat("x", 100_000))
			}
			h.Set("X-Announced", "1")
			h.Set(http.TrailerPrefix+"X-More", "2")
		case "/large":
			h.Set("X-Large", strings.Repeat("x", 100_000))
		case "/cut":
			fmt.Fprint(w, "part")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		case "/abort":
			panic(http.ErrAbortHandler)
		}
	})
	for name, client := range clients(t) {
		get := func(method, path string) (*http.Response, string, error) {
			hints := 0
			ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
				if hints++; code != 103 || h.Get("Link") != "</a.css>" {
					t.Errorf("%s: %d %v", name, code, h)
				}
				return nil
			}})
			r, _ := http.NewRequestWithContext(ctx, method, b.front.URL+"/fn/hello"+path, nil)
			resp, err := client.Do(r)
			if err != nil {
				t.Fatalf("%s: %s: %v", name, path, err)
			}
			defer resp.Body.Close()
			if (path == "/hints") != (hints == 1) {
				t.Errorf("%s: %s: %d early hints", name, path, hints)
			}
			body, err := io.ReadAll(resp.Body)
			return resp, string(body), err
		}
		if resp, body, err := get("GET", "/hints"); err != nil || body != "ok" || resp.StatusCode != 200 {
			t.Errorf("%s: %v %q %v", name, resp, body, err)
		}
		if resp, _, err := get("HEAD", "/hints"); err != nil || resp.StatusCode != 200 {
			t.Errorf("%s: %v %v", name, resp, err)
		}
		if resp, _, err := get("GET", "/nothing"); err != nil || resp.StatusCode != 204 {
			t.Errorf("%s: %v %v", name, resp, err)
		}
		if resp, _, err := get("GET", "/same"); err != nil || resp.StatusCode != 304 || resp.Header.Get("Etag") != `"a"` {
			t.Errorf("%s: %v %v", name, resp, err)
		}
		if resp, body, err := get("GET", "/trailers"); err != nil || len(body) != 100_000 || resp.Trailer.Get("X-Announced") != "1" || resp.Trailer.Get("X-More") != "2" ||
			resp.Header.Get("Tatami-Error") != "" || resp.Header.Get("Server-Timing") == "" {
			t.Errorf("%s: %v %d %v", name, resp, len(body), err)
		}
		if resp, body, err := get("GET", "/trailers?short"); err != nil || body != "x" || resp.Trailer.Get("X-Announced") != "1" {
			t.Errorf("%s: %v %q %v", name, resp, body, err)
		}
		if resp, body, err := get("GET", "/large"); err != nil {
			t.Error(err)
		} else {
			b.wantFault(resp, body, "function-bad-response", 502, "bytes of header")
		}
		if resp, body, err := get("GET", "/cut"); err == nil || body != "part" {
			t.Errorf("%s: a broken answer came whole: %v %q", name, resp, body)
		}
		if resp, body, err := get("GET", "/abort"); err != nil {
			t.Error(err)
		} else {
			b.wantFault(resp, body, "function-bad-response", 502)
		}
	}
	b.idle()
}

// Streams go both ways at once, the caller's leaving reaches the function, and the limits hold.
func TestH2Streams(t *testing.T) {
	t.Parallel()
	b := setup(t, invoke.Config{MaxBody: 1 << 20})
	const limit = 2 * time.Second
	began, left := make(chan struct{}, 10), make(chan struct{}, 10)
	b.backendH2(b.deploy("hello", func(c *functions.Config) {
		h2c(c)
		c.Timeout = functions.Duration(limit)
	}), func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/cat":
			w.WriteHeader(200)
			_ = http.NewResponseController(w).Flush()
			br := bufio.NewReader(r.Body)
			for {
				line, err := br.ReadString('\n')
				if err != nil {
					return
				}
				fmt.Fprint(w, line)
				_ = http.NewResponseController(w).Flush()
			}
		case "/early":
			fmt.Fprint(w, "enough")
		case "/wait":
			began <- struct{}{}
			<-r.Context().Done()
			left <- struct{}{}
		case "/drop":
			_, _ = io.Copy(io.Discard, r.Body)
		}
	})
	for name, client := range clients(t) {
		t.Run(name, func(t *testing.T) {
			pr, pw := io.Pipe()
			r, _ := http.NewRequestWithContext(t.Context(), "POST", b.front.URL+"/fn/hello/cat", pr)
			resp, err := client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			br := bufio.NewReader(resp.Body)
			for _, line := range []string{"one\n", "two\n"} {
				fmt.Fprint(pw, line)
				if got, err := br.ReadString('\n'); err != nil || got != line {
					t.Fatalf("%q, %v", got, err)
				}
			}
			pw.Close()
			if _, err := br.ReadByte(); err != io.EOF {
				t.Errorf("%v", err)
			}
			resp.Body.Close()

			// An answer that does not wait for the body.
			pr, pw = io.Pipe()
			r, _ = http.NewRequestWithContext(t.Context(), "POST", b.front.URL+"/fn/hello/early", pr)
			if resp, err = client.Do(r); err != nil {
				t.Fatal(err)
			}
			if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "enough" {
				t.Errorf("%q, %v", body, err)
			}
			resp.Body.Close()
			pw.Close()

			resp, err = client.Get(b.front.URL + "/fn/hello/wait")
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			b.wantFault(resp, string(body), "function-timeout", 504, limit.String())
			wait(t, began)
			wait(t, left)

			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				<-began
				cancel()
			}()
			r, _ = http.NewRequestWithContext(ctx, "GET", b.front.URL+"/fn/hello/wait", nil)
			if _, err := client.Do(r); !errors.Is(err, context.Canceled) {
				t.Errorf("%v", err)
			}
			wait(t, left)

			r, _ = http.NewRequestWithContext(t.Context(), "POST", b.front.URL+"/fn/hello/drop", io.MultiReader(strings.NewReader(strings.Repeat("x", 2<<20))))
			if resp, err = client.Do(r); err != nil {
				t.Fatal(err)
			}
			body, _ = io.ReadAll(resp.Body)
			resp.Body.Close()
			b.wantFault(resp, string(body), "body-too-large", 413)
			b.idle()
		})
	}
}

// Requests share connections, and an instance that left keeps none.
func TestH2Connections(t *testing.T) {
	t.Parallel()
	b := setup(t, invoke.Config{})
	rev := b.deploy("hello", h2c)
	id := b.backendH2(rev, seen)
	client := clients(t)["http1"]
	for range 20 {
		resp, err := client.Get(b.front.URL + "/fn/hello")
		if err != nil || resp.StatusCode != 200 {
			t.Fatal(resp, err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	b.node.mu.Lock()
	dials := b.node.dials
	b.node.mu.Unlock()
	if dials != 1 {
		t.Errorf("%d connections for 20 requests", dials)
	}
	// One that does not take connections is left alone; the request goes to the other.
	b.backendH2(rev, seen)
	b.node.change(id, func(i *inst) { i.dead = true })
	b.node.end(t, bus.Departure{Instance: id, State: functions.InstanceStopped})
	for range 4 {
		if resp, body := b.do("GET", "/fn/hello", nil); resp.StatusCode != 200 {
			t.Errorf("%d %s", resp.StatusCode, body)
		}
	}
	dead := b.deploy("dead", h2c)
	b.node.change(b.backendH2(dead, seen), func(i *inst) { i.dead = true })
	resp, body := b.do("GET", "/fn/dead", nil)
	b.wantFault(resp, body, "function-bad-response", 502, "takes no connections")
	b.idle()
}

// What does not speak the protocol that it is said to speak is told so, with the setting to change.
func TestWrongProtocol(t *testing.T) {
	t.Parallel()
	b := setup(t, invoke.Config{})
	b.backend(b.deploy("one", h2c), seen)
	resp, body := b.do("GET", "/fn/one", nil)
	b.wantFault(resp, body, "function-bad-response", 502, "leave protocol: h2c out")
	b.rawBackend(b.deploy("two", nil), func(c net.Conn) {
		// The settings that a server of HTTP/2 begins with.
		_, _ = c.Write([]byte("\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x05\x00\x00\x40\x00"))
		_, _ = c.Read(make([]byte, 100))
	})
	resp, body = b.do("GET", "/fn/two", nil)
	b.wantFault(resp, body, "function-bad-response", 502, "protocol: h2c")

	// The end of a process is told as such.
	rev := b.deploy("three", h2c)
	var id functions.InstanceID
	started := make(chan struct{})
	id = b.rawBackend(rev, func(c net.Conn) {
		<-started
		// Before it has the request, it is sent to another instance.
		awaitH2Request(c)
		b.node.end(t, bus.Departure{Instance: id, State: functions.InstanceFailed, Reason: "exited with code 3"})
	})
	close(started)
	resp, body = b.do("GET", "/fn/three", nil)
	b.wantFault(resp, body, "function-crashed", 502, "exited with code 3")
}

// awaitH2Request reads a client's connection up to the head of its first request.
func awaitH2Request(c net.Conn) {
	_, _ = io.ReadFull(c, make([]byte, len(http2.ClientPreface)))
	frames := http2.NewFramer(io.Discard, c)
	for {
		f, err := frames.ReadFrame()
		if _, head := f.(*http2.HeadersFrame); head || err != nil {
			return
		}
	}
}

// bytesCodec passes messages as they are.
type bytesCodec struct{}

func (bytesCodec) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }
func (bytesCodec) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), data...)
	return nil
}
func (bytesCodec) Name() string { return "bytes" }

// A real gRPC server as a function, a real client as its caller.
func TestGRPC(t *testing.T) {
	t.Parallel()
	b := setup(t, invoke.Config{})
	const limit = 2 * time.Second
	rev := b.deploy("rpc", func(c *functions.Config) {
		h2c(c)
		c.Timeout = functions.Duration(limit)
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.ForceServerCodec(bytesCodec{}), grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
		method, _ := grpc.MethodFromServerStream(s)
		md, _ := metadata.FromIncomingContext(s.Context())
		s.SetTrailer(metadata.Pairs("x-trailer", strings.Join(md.Get("x-mine"), ",")))
		for n := 0; ; n++ {
			var m []byte
			if err := s.RecvMsg(&m); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
			switch {
			case strings.HasSuffix(method, "/Fail"):
				return status.Error(codes.FailedPrecondition, "as it was told: ü")
			case strings.HasSuffix(method, "/Slow"):
				<-s.Context().Done()
				return s.Context().Err()
			}
			if err := s.SendMsg(&m); err != nil {
				return err
			}
		}
	}))
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	b.node.start(t, rev, l.Addr().String(), functions.Phases{})
	// gRPC has no path prefix: the function is found by its host.
	b.put(func(w http.ResponseWriter, r *http.Request) {
		name, _, _ := strings.Cut(r.Host, ".")
		b.inv.ServeFunction(w, r, functions.Ref{Namespace: "default", Name: name}, r.URL.Path)
	})
	dial := func(host string) *grpc.ClientConn {
		cc, err := grpc.NewClient("passthrough:///"+b.front.Listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithAuthority(host), grpc.WithDefaultCallOptions(grpc.ForceCodec(bytesCodec{})))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cc.Close() })
		return cc
	}
	cc := dial("rpc.default.example")
	ctx := metadata.AppendToOutgoingContext(t.Context(), "x-mine", "1")

	in, out := []byte("hello"), []byte(nil)
	var trailer metadata.MD
	if err := cc.Invoke(ctx, "/x.Y/Echo", &in, &out, grpc.Trailer(&trailer)); err != nil || string(out) != "hello" || trailer.Get("x-trailer")[0] != "1" {
		t.Errorf("unary: %q, %v, %v", out, trailer, err)
	}
	if err := cc.Invoke(ctx, "/x.Y/Fail", &in, &out); status.Code(err) != codes.FailedPrecondition || status.Convert(err).Message() != "as it was told: ü" {
		t.Errorf("failing: %v", err)
	}
	if err := cc.Invoke(ctx, "/x.Y/Slow", &in, &out); status.Code(err) != codes.DeadlineExceeded || !strings.Contains(err.Error(), "timeout of "+limit.String()) {
		t.Errorf("the platform's timeout: %v", err)
	}
	if err := dial("nobody.default.example").Invoke(ctx, "/x.Y/Echo", &in, &out); status.Code(err) != codes.Unimplemented || !strings.Contains(err.Error(), "no function nobody") {
		t.Errorf("an unknown function: %v", err)
	}

	stream, err := cc.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/x.Y/Echo")
	if err != nil {
		t.Fatal(err)
	}
	// Longer than the timeout, which holds for the head of the answer only.
	for i, begun := 0, time.Now(); time.Since(begun) < limit+limit/4; i++ {
		in := fmt.Appendf(nil, "message %d %s", i, strings.Repeat("x", i%13*10_000))
		if err := stream.SendMsg(&in); err != nil {
			t.Fatal(err)
		}
		var out []byte
		if err := stream.RecvMsg(&out); err != nil || string(out) != string(in) {
			t.Fatalf("%d: %.30q, %v", i, out, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if err := stream.RecvMsg(&out); !errors.Is(err, io.EOF) {
		t.Errorf("the end of the stream: %v", err)
	}
	b.idle()
}

// A queued invocation runs over HTTP/2 like any other.
func TestH2RoundTrip(t *testing.T) {
	t.Parallel()
	b := setup(t, invoke.Config{})
	b.backendH2(b.deploy("hello", func(c *functions.Config) {
		h2c(c)
		c.Timeout = functions.Duration(2 * time.Second)
	}), func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			_, _ = io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
			return
		}
		seen(w, r)
	})
	ref := functions.Ref{Namespace: "default", Name: "hello"}
	trip := func(path, body string) (string, error) {
		l, err := b.inv.Lease(t.Context(), ref, invoke.Async)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Release()
		r, _ := http.NewRequestWithContext(t.Context(), "POST", "http://hello"+path, strings.NewReader(body))
		resp, err := l.RoundTrip(r)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		got, err := io.ReadAll(resp.Body)
		return string(got), err
	}
	for _, size := range []int{0, 5, 300_000} {
		body := strings.Repeat("x", size)
		if got, err := trip("/a%2Fb?q", body); err != nil || !strings.HasPrefix(got, fmt.Sprintf("POST /a%%2Fb?q host=hello len=%d te=[] body=%s\n", size, body)) {
			t.Errorf("%.200q, %v", got, err)
		}
	}
	if _, err := trip("/wait", "x"); fault.CodeOf(err) != fault.CodeFunctionTimeout {
		t.Errorf("%v", err)
	}
	b.idle()
}
