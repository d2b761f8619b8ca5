package invoke_test

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/invoke"
)

// passage is what became of a request: what the function saw of it, and what the client saw of the answer.
type passage struct {
	Seen   string
	Answer []string
	// Next is the status of a further request on the same connection, or why there is none.
	Next string
}

// ours lists what differs from ReverseProxy by design, whatever the request. Headers are left out of the comparison on both sides.
var ours = map[string]string{
	"Date":                 "the time",
	"Tatami-Invocation-Id": "names the invocation to the function and to the client",
	"Tatami-Error":         "says that the platform answered, and why; the function cannot say it",
	"Server-Timing":        "shows the phases",
	"Traceparent":          "begins a trace where the client did not",
	"Forwarded":            "the standard form of X-Forwarded-*, which ReverseProxy does not write",
	"X-Forwarded-For":      "continues what the client's proxies said, where SetXForwarded begins anew; TestRequestHeaders holds it",
	"X-Forwarded-Host":     "the same",
	"X-Forwarded-Proto":    "the same",
}

// upstream answers by path and remembers what it saw, for both proxies.
type upstream struct {
	mu   sync.Mutex
	seen map[string]string
}

func headerText(h http.Header) string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(h)) {
		if _, differs := ours[k]; !differs && k != "X-Case" {
			fmt.Fprintf(&b, "%s: %q\n", k, h[k])
		}
	}
	return b.String()
}

func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body []byte
	var err error
	early := strings.HasPrefix(r.URL.Path, "/early")
	if !early {
		body, err = io.ReadAll(r.Body)
	}
	text := fmt.Sprintf("%s %s %s %s\nlength %d, %v\n%sbody %d bytes %.40q, %v\ntrailer %v", r.Method, r.RequestURI, r.Proto, r.Host, r.ContentLength,
		r.TransferEncoding, headerText(r.Header), len(body), body, err, r.Trailer)
	u.mu.Lock()
	if r.Header.Get("X-Next") == "" {
		u.seen[r.Header.Get("X-Case")] = text
	}
	u.mu.Unlock()
	h := w.Header()
	name, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	switch name {
	case "hints":
		h.Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		h.Set("Link", "</script.js>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		h.Del("Link")
		_, _ = io.WriteString(w, "after the hints")
	case "204", "205", "304":
		h.Set("Etag", `"x"`)
		w.WriteHeader(map[string]int{"204": 204, "205": 205, "304": 304}[name])
	case "odd-status":
		w.WriteHeader(299)
		_, _ = io.WriteString(w, "odd")
	case "headers":
		h["Set-Cookie"] = []string{"a=1", "b=2"}
		h.Set("Connection", "X-Hop")
		h.Set("X-Hop", "for the proxy only")
		h.Set("X-Kept", "")
		h.Set("Keep-Alive", "timeout=5")
		h.Set("Proxy-Authenticate", "Basic")
		_, _ = io.WriteString(w, "headers")
	case "large-header":
		for i := range 30 {
			h.Set(fmt.Sprintf("X-Large-%02d", i), strings.Repeat("v", 1000))
		}
		_, _ = io.WriteString(w, "large")
	case "no-type":
		h["Content-Type"] = nil
		_, _ = io.WriteString(w, "<html>")
	case "chunked":
		for i := range 3 {
			fmt.Fprintf(w, "part %d\n", i)
			_ = http.NewResponseController(w).Flush()
		}
	case "trailers":
		h.Set("Trailer", "X-Announced")
		_, _ = io.WriteString(w, "body")
		h.Set("X-Announced", "yes")
		h.Set(http.TrailerPrefix+"X-Sudden", "yes")
	case "long":
		_, _ = io.WriteString(w, strings.Repeat("0123456789", 20_000))
	case "broken-length", "broken-chunks", "until-close":
		c, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = rw.WriteString(map[string]string{
			"broken-length": "HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Length: 100\r\n\r\nshort",
			"broken-chunks": "HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
			"until-close":   "HTTP/1.1 200 OK\r\nContent-Type: a/b\r\n\r\nall of it",
		}[name])
		_ = rw.Flush()
	case "early":
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		_, _ = io.WriteString(w, "not wanted")
	default:
		_, _ = io.WriteString(w, "ok")
	}
}

// conformanceCase is a request in the bytes of HTTP/1; PATH stands for what leads to the function, CASE for its name.
type conformanceCase struct {
	name, request string
	// differs is why the two need not agree; then only want, a part of what the function or the client sees, is looked for.
	differs, want string
}

func get(path string, lines ...string) string {
	return "GET PATH" + path + " HTTP/1.1\r\nHost: example.com\r\nX-Case: CASE\r\n" + strings.Join(append(lines, "\r\n"), "\r\n")
}

func post(body string, lines ...string) string {
	return strings.Replace(get("/echo", lines...), "GET", "POST", 1) + body
}

func conformanceCases() []conformanceCase {
	var cases []conformanceCase
	add := func(name, request string) { cases = append(cases, conformanceCase{name: name, request: request}) }
	for _, m := range []string{"POST", "PUT", "PATCH"} {
		add("method "+m, strings.Replace(get("/echo", "Content-Length: 0"), "GET", m, 1))
	}
	for _, m := range []string{"HEAD", "DELETE", "OPTIONS", "TRACE", "PURGE"} {
		add("method "+m, strings.Replace(get("/echo"), "GET", m, 1))
	}
	for _, p := range []string{"/", "/a%2Fb", "//x//y", "/a/../b", "/a/./b", "/%20x", "/%E4%F6", "/a;b=c", "/*", "/a+b", "/%7e~", "/?", "/?a=%20+b&a=c", "/?%2F=%3D", "/a:b@c"} {
		add("path "+p, get(p))
	}
	for name, path := range map[string]string{
		"early hints": "/hints", "no content": "/204", "reset content": "/205", "not modified": "/304", "odd status": "/odd-status", "headers of an answer": "/headers",
		"large header of an answer": "/large-header", "trailers of an answer": "/trailers", "long answer": "/long",
		"length not kept": "/broken-length", "chunks not ended": "/broken-chunks", "answer until close": "/until-close",
	} {
		add(name, get(path))
		if name != "trailers of an answer" {
			add(name+", HEAD", strings.Replace(get(path), "GET", "HEAD", 1))
		}
	}
	add("spelling of headers", get("/echo", "x-lower: a", "X-UPPER: b", "x-Twice: 1", "X-tWICE: 2", "X-Empty:", "Cookie: a=b", "Cookie: c=d"))
	add("headers of the connection", get("/echo", "Connection: keep-alive, X-Hop", "X-Hop: secret", "Keep-Alive: 5", "Proxy-Authorization: Basic x", "Proxy-Connection: keep-alive"))
	add("many headers", get("/echo", strings.Split(strings.Repeat("X-Many: value\n", 99)+"X-Many: value", "\n")...))
	add("large header", get("/echo", "X-Large: "+strings.Repeat("v", 30_000)))
	add("TE trailers", get("/echo", "TE: trailers, deflate", "Connection: TE"))
	add("upgrade without Connection", get("/echo", "Upgrade: websocket"))
	add("user agent", get("/echo", "User-Agent: test", "Accept-Encoding: gzip"))
	add("close", get("/echo", "Connection: close"))
	add("HTTP/1.0", strings.Replace(get("/echo"), "HTTP/1.1", "HTTP/1.0", 1))
	add("HTTP/1.0 kept", strings.Replace(get("/echo", "Connection: keep-alive"), "HTTP/1.1", "HTTP/1.0", 1))
	add("fixed body", post("hello", "Content-Length: 5"))
	add("empty body", post("", "Content-Length: 0"))
	add("long body", post(strings.Repeat("x", 200_000), "Content-Length: 200000"))
	add("chunked body", post("5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", "Transfer-Encoding: chunked"))
	add("GET with a body", get("/echo", "Content-Length: 5")+"hello")
	add("answer before the body", strings.Replace(post("hello", "Content-Length: 5"), "/echo", "/early", 1))
	return append(cases,
		conformanceCase{
			name: "trailers", request: post("5\r\nhello\r\n0\r\nX-Sum: 5\r\n\r\n", "Transfer-Encoding: chunked", "Trailer: X-Sum"), want: "trailer map[X-Sum:[5]]",
			differs: "ReverseProxy announces a request's trailers and loses their values",
		},
		conformanceCase{
			name: "no body, and its length", request: strings.Replace(get("/echo", "Content-Length: 0"), "GET", "DELETE", 1), want: "Content-Length: [\"0\"]",
			differs: "the function is told what the client said; ReverseProxy leaves the length out where the method needs none",
		},
		conformanceCase{
			name: "no type", request: get("/no-type"), want: "length 6, [], close false\nContent-Length: [\"6\"]\nbody",
			differs: "what the function did not say is not guessed for it; ReverseProxy's server guesses a Content-Type",
		},
		conformanceCase{
			name: "chunked answer", request: get("/chunked"), want: `"part 0\npart 1\npart 2\n"`,
			differs: "a short answer that is whole when it is read is passed on in one piece, with its length; TestStreamsBothWays holds that a piece is not held back",
		},
		conformanceCase{
			name: "chunked answer, HTTP/1.0", request: strings.Replace(get("/chunked"), "HTTP/1.1", "HTTP/1.0", 1), want: `"part 0\npart 1\npart 2\n"`,
			differs: "the same",
		},
		conformanceCase{
			name: "body broken off", request: post("5\r\nhel", "Transfer-Encoding: chunked"), want: "status code 499",
			differs: "the client is gone and sees nothing; it is counted as gone, where ReverseProxy counts a bad gateway",
		},
		conformanceCase{
			name: "query with a semicolon", request: get("/?a=b;c=d"), want: "/?a=b;c=d",
			differs: "the query is the function's to read: what ReverseProxy cannot parse it takes out",
		},
		conformanceCase{
			name: "Expect", request: post("hello", "Content-Length: 5", "Expect: 100-continue"), want: "body 5 bytes",
			differs: "ReverseProxy passes Expect on and asks the client at once; here the client is asked when its body is read",
		})
}

// send makes the request and reads all that is answered.
func send(t *testing.T, addr, path string, c conformanceCase, u *upstream, who string) passage {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	fill := strings.NewReplacer("PATH", path, "CASE", c.name+who)
	if _, err := io.WriteString(conn, fill.Replace(c.request)); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(c.name, "broken off") {
		_ = conn.(*net.TCPConn).CloseWrite()
	}
	method, _, _ := strings.Cut(c.request, " ")
	br := bufio.NewReader(conn)
	var p passage
	alive := false
	for {
		resp, err := http.ReadResponse(br, &http.Request{Method: method})
		if err != nil {
			p.Answer = append(p.Answer, "no answer")
			break
		}
		body, err := io.ReadAll(resp.Body)
		p.Answer = append(p.Answer, fmt.Sprintf("%s %s, length %d, %v, close %v\n%sbody %d bytes %.40q, %v\ntrailer %s", resp.Proto, resp.Status, resp.ContentLength,
			resp.TransferEncoding, resp.Close, headerText(resp.Header), len(body), body, err, headerText(resp.Trailer)))
		alive = err == nil && !resp.Close
		if resp.StatusCode >= 200 {
			break
		}
	}
	if alive {
		p.Next = "closed"
		if _, err := io.WriteString(conn, fill.Replace(get("/next", "X-Next: yes"))); err == nil {
			if resp, err := http.ReadResponse(br, nil); err == nil {
				p.Next = resp.Status
				_ = resp.Body.Close()
			}
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	p.Seen = u.seen[c.name+who]
	return p
}

// Every behaviour is that of the standard library's ReverseProxy in front of the same function, but for what is listed as ours.
func TestAsReverseProxy(t *testing.T) {
	t.Parallel()
	b := setup(t, invoke.Config{})
	u := &upstream{seen: map[string]string{}}
	silent := slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	backend := httptest.NewUnstartedServer(u)
	backend.Config.ErrorLog = silent
	backend.Start()
	defer backend.Close()
	addr := backend.Listener.Addr().String()
	rev := b.deploy("hello", func(c *functions.Config) { c.Concurrency = 100 })
	b.node.start(t, rev, addr, functions.Phases{})

	tr := &http.Transport{DisableCompression: true}
	defer tr.CloseIdleConnections()
	proxy := httptest.NewUnstartedServer(&httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "http", addr, r.In.Host },
		Transport: tr, ErrorLog: silent, FlushInterval: -1,
	})
	proxy.Config.ErrorLog = silent
	proxy.Start()
	defer proxy.Close()
	for _, c := range conformanceCases() {
		t.Run(c.name, func(t *testing.T) {
			got := send(t, b.front.Listener.Addr().String(), "/fn/hello", c, u, " ours")
			if c.differs != "" {
				if all := got.Seen + strings.Join(got.Answer, "\n"); !strings.Contains(all, c.want) {
					t.Errorf("no %q in\n%s", c.want, all)
				}
				return
			}
			want := send(t, proxy.Listener.Addr().String(), "", c, u, " reverseproxy")
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("it differs from ReverseProxy (-) :\n%s", diff)
			}
		})
	}
	b.idle()
}
