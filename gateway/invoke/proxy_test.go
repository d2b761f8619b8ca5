package invoke_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/invoke"
)

// seen describes a request as a function got it.
func seen(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	fmt.Fprintf(w, "%s %s host=%s len=%d te=%v body=%s\n", r.Method, r.RequestURI, r.Host, r.ContentLength, r.TransferEncoding, body)
	var keys []string
	for k := range r.Header {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		for _, v := range r.Header[k] {
			fmt.Fprintf(w, "%s: %s\n", k, v)
		}
	}
	for k, v := range r.Trailer {
		fmt.Fprintf(w, "trailer %s: %s\n", k, v)
	}
}

func TestRequestPasses(t *testing.T) {
	t.Parallel()
	b := setup(t, invoke.Config{})
	b.backend(b.deploy("hello", nil), seen)

	for _, m := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "BREW"} {
		if _, got := b.do(m, "/fn/hello/x", nil); !strings.HasPrefix(got, m+" /x host=") {
			t.Errorf("%s arrives as %q", m, got)
		}
	}
	for _, path := range []string{
		"/", "/a%2Fb", "/a%2fb%20c", "/..%2f", "/a//b", "/a/./b/../c", "/%E2%82%AC", "/a;b=c", "/a+b", "/?", "/?x=1&x=2", "/a?x=%20;y&&", "/a?b?c",
	} {
		if _, got := b.do("GET", "/fn/hello"+path, nil); !strings.HasPrefix(got, "GET "+path+" host=") {
			t.Errorf("%s arrives as %q", path, got)
		}
	}
	if _, got := b.do("GET", "/fn/hello", nil); !strings.HasPrefix(got, "GET / host=") {
		t.Errorf("no path arrives as %q", got)
	}
	if _, got := b.do("GET", "/fn/hello.default/y", nil); !strings.HasPrefix(got, "GET /y") {
		t.Errorf("a name with its namespace arrives as %q", got)
	}
	for _, size := range []int{0, 1, 4000, 5000, 64 << 10, 64<<10 + 1, 300_000} {
		body := strings.Repeat("x", size)
		if _, got := b.do("POST", "/fn/hello", strings.NewReader(body)); !strings.Contains(got, fmt.Sprintf("len=%d te=[] body=%s\n", size, body)) {
			t.Errorf("a body of %d arrives as %.100q", size, got)
		}
		if _, got := b.do("POST", "/fn/hello", io.MultiReader(strings.NewReader(body))); size > 0 && !strings.Contains(got, fmt.Sprintf("te=[chunked] body=%s\n", body)) {
			t.Errorf("a body of %d in chunks arrives as %.100q", size, got)
		}
	}
	b.idle()
}

func TestRequestHeaders(t *testing.T) {
	t.Parallel()
	b := setup(t, invoke.Config{})
	b.backend(b.deploy("hello", nil), seen)
	r, _ := http.NewRequest("POST", b.front.URL+"/fn/hello", strings.NewReader("x"))
	r.Host = "example.com:99"
	for _, kv := range [][2]string{
		{"Accept", "a"}, {"Accept", "b"}, {"Cookie", "c=d"}, {"X-Own", ""}, {"Authorization", "Bearer x"},
		{"Connection", "X-Named, keep-alive"}, {"X-Named", "gone"}, {"Keep-Alive", "timeout=5"}, {"Proxy-Connection", "close"},
		{"Proxy-Authorization", "secret"}, {"Te", "trailers, deflate"},
		{"Tatami-Invocation-Id", "forged"}, {"Tatami-Error", "forged"}, {"tatami-anything", "forged"},
		{"Forwarded", "for=1.2.3.4"}, {"X-Forwarded-For", "1.2.3.4"}, {"X-Forwarded-Host", "forged"}, {"X-Forwarded-Proto", "https"},
		{"Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}, {"Tracestate", "a=b"},
	} {
		r.Header.Add(kv[0], kv[1])
	}
	resp, err := b.front.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	got := string(body)
	resp.Body.Close()
	for _, want := range []string{
		"host=example.com:99 ", "Accept: a\n", "Accept: b\n", "Cookie: c=d\n", "X-Own: \n", "Authorization: Bearer x\n", "Te: trailers\n",
		"Forwarded: for=1.2.3.4, for=127.0.0.1;host=\"example.com:99\";proto=http\n", "X-Forwarded-For: 1.2.3.4, 127.0.0.1\n",
		"X-Forwarded-Host: example.com:99\n", "X-Forwarded-Proto: http\n",
		"Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\n", "Tracestate: a=b\n", "Tatami-Invocation-Id: inv_",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("lacks %q", want)
		}
	}
	for _, bad := range []string{"forged", "gone", "secret", "Keep-Alive", "Proxy-", "Connection:", "deflate"} {
		if strings.Contains(got, bad) {
			t.Errorf("holds %q", bad)
		}
	}
	id := functions.InvocationID(resp.Header.Get("Tatami-Invocation-Id"))
	if h, ok := id.FunctionHash(); !ok || h != (functions.Ref{Namespace: "default", Name: "hello"}).Hash() || !strings.Contains(got, "Tatami-Invocation-Id: "+string(id)+"\n") {
		t.Errorf("the answer names invocation %q", id)
	}
	if t.Failed() {
		t.Log(got)
	}

	_, got = b.do("GET", "/fn/hello", nil, "Traceparent", "00-00000000000000000000000000000000-b7ad6b7169203331-01", "Tracestate", "stale=1")
	if !regexp.MustCompile(`(?m)^Traceparent: 00-[0-9a-f]{32}-[0-9a-f]{16}-00$`).MatchString(got) || strings.Contains(got, "stale") {
		t.Errorf("a broken trace is not replaced: %s", got)
	}
}

func TestAnswerPasses(t *testing.T) {
	t.Parallel()
	b := setup(t, invoke.Config{})
	b.backend(b.deploy("hello", nil), func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		switch r.URL.Path {
		case "/named", "/fields":
			h["Set-Cookie"] = []string{"a=1", "b=2"}
			if r.URL.Path == "/named" {
				h.Set("Connection", "X-Named")
				h.Set("X-Named", "gone")
			}
			h.Set("Keep-Alive", "timeout=5")
			h.Set("Tatami-Error", "forged")
			h.Set("Tatami-Invocation-Id", "forged")
			h.Set("Server-Timing", "db;dur=5")
			h.Set("Content-Type", "text/x")
			w.WriteHeader(418)
			_, _ = io.WriteString(w, "teapot")
		case "/untyped":
			h["Content-Type"] = nil
			_, _ = io.WriteString(w, "<html>")
		case "/empty":
			w.WriteHeader(204)
		case "/notmodified":
			h.Set("Etag", `"x"`)
			w.WriteHeader(304)
		case "/trailers":
			h.Set("Trailer", "X-Sum, X-Late, Tatami-Error")
			_, _ = io.WriteString(w, "body")
			h.Set("X-Sum", "1")
			h.Set("Tatami-Error", "forged")
			h.Set(http.TrailerPrefix+"X-Unannounced", "2")
		case "/emptytrailers":
			h.Set("Trailer", "X-Sum")
			h.Set("X-Sum", "1")
		case "/length":
			h.Set("Content-Length", "7")
			if r.Method != "HEAD" {
				_, _ = io.WriteString(w, "sevenby")
			}
		case "/hints":
			h.Set("Link", "</a.css>; rel=preload")
			w.WriteHeader(103)
			h.Del("Link")
			_, _ = io.WriteString(w, "late")
		}
	})
	// The call that may find the instance not known yet counts as cold, and says so.
	b.do("GET", "/fn/hello/empty", nil)
	for _, path := range []string{"/named", "/fields"} {
		resp, body := b.do("GET", "/fn/hello"+path, nil)
		h := resp.Header
		if resp.StatusCode != 418 || body != "teapot" || !slices.Equal(h["Set-Cookie"], []string{"a=1", "b=2"}) || h.Get("Content-Type") != "text/x" {
			t.Errorf("%s: %d %q %v", path, resp.StatusCode, body, h)
		}
		if v := h.Values("Tatami-Invocation-Id"); len(v) != 1 || v[0] == "forged" {
			t.Errorf("%s: Tatami-Invocation-Id %q", path, v)
		}
		for _, k := range []string{"X-Named", "Keep-Alive", "Tatami-Error", "Connection"} {
			if v, ok := h[k]; ok {
				t.Errorf("%s: %s: %v", path, k, v)
			}
		}
		if st := h["Server-Timing"]; len(st) != 2 || st[0] != "db;dur=5" || !regexp.MustCompile(`^queue;dur=\d+\.\d{3}, run;dur=\d+\.\d{3}$`).MatchString(st[1]) {
			t.Errorf("%s: Server-Timing %q", path, st)
		}
	}
	if resp, body := b.do("GET", "/fn/hello/untyped", nil); len(resp.Header["Content-Type"]) != 0 || body != "<html>" {
		t.Errorf("a type was guessed: %v", resp.Header)
	}
	if resp, body := b.do("GET", "/fn/hello/empty", nil); resp.StatusCode != 204 || body != "" {
		t.Errorf("%d %q", resp.StatusCode, body)
	}
	if resp, body := b.do("GET", "/fn/hello/notmodified", nil); resp.StatusCode != 304 || body != "" || resp.Header.Get("Etag") != `"x"` {
		t.Errorf("%d %q", resp.StatusCode, body)
	}
	resp, body := b.do("GET", "/fn/hello/trailers", nil)
	if body != "body" || resp.Trailer.Get("X-Sum") != "1" || resp.Trailer.Get("X-Unannounced") != "2" || len(resp.Trailer["Tatami-Error"]) != 0 {
		t.Errorf("trailers %v after %q", resp.Trailer, body)
	}
	if resp, _ = b.do("GET", "/fn/hello/emptytrailers", nil); resp.Trailer.Get("X-Sum") != "1" {
		t.Errorf("trailers %v after no body", resp.Trailer)
	}
	if resp, body := b.do("HEAD", "/fn/hello/length", nil); resp.ContentLength != 7 || body != "" {
		t.Errorf("HEAD: %d %q", resp.ContentLength, body)
	}
	if resp, body := b.do("GET", "/fn/hello/length", nil); resp.ContentLength != 7 || body != "sevenby" || len(resp.TransferEncoding) != 0 {
		t.Errorf("GET: %d %q %v", resp.ContentLength, body, resp.TransferEncoding)
	}
	if resp, body := b.do("GET", "/fn/hello/hints", nil); body != "late" || resp.Header.Get("Link") != "" {
		t.Errorf("after a hint: %q %v", body, resp.Header)
	}
	b.idle()
	b.counted("ten requests", func(s invoke.FunctionStats) bool { return s.Requests >= 10 })
	st := b.inv.Stats()
	if len(st) != 1 || st[0].Function != "hello" || st[0].Requests != 11 || st[0].Codes["418"] != 2 || st[0].Errors != 0 || st[0].P50 <= 0 || st[0].RPS <= 0 {
		t.Errorf("figures %+v", st)
	}
}

func TestRequestTrailers(t *testing.T) {
	t.Parallel()
	b := setup(t, invoke.Config{})
	b.backend(b.deploy("hello", nil), seen)
	r, _ := http.NewRequest("POST", b.front.URL+"/fn/hello", io.MultiReader(strings.NewReader("body")))
	r.Trailer = http.Header{"X-Sum": {"1"}, "Tatami-Forged": {"1"}}
	resp, err := b.front.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, _ := io.ReadAll(resp.Body)
	if !strings.Contains(string(got), "body=body\n") || !strings.Contains(string(got), "trailer X-Sum: [1]") || strings.Contains(string(got), "Forged") {
		t.Errorf("%s", got)
	}
}

// Large bodies pass unchanged both ways at the same time, faster than the slower side could hold them.
func TestLargeBodies(t *testing.T) {
	t.Parallel()
	b := setup(t, invoke.Config{})
	b.backend(b.deploy("echo", nil), func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		_, _ = io.Copy(w, r.Body)
	})
	data := bytes.Repeat([]byte("0123456789abcdef"), 2<<20) // 32 MiB
	want := sha256.Sum256(data)
	for _, body := range []io.Reader{bytes.NewReader(data), io.MultiReader(bytes.NewReader(data))} {
		resp, got := b.do("PUT", "/fn/echo", body)
		sum := sha256.Sum256([]byte(got))
		if resp.StatusCode != 200 || sum != want {
			t.Errorf("%d, %d bytes, sum %s", resp.StatusCode, len(got), hex.EncodeToString(sum[:4]))
		}
	}
	b.idle()
}

// What the function flushes arrives before it goes on, and what the client sends arrives before it has sent all.
func TestStreamsBothWays(t *testing.T) {
	t.Parallel()
	b := setup(t, invoke.Config{})
	b.backend(b.deploy("echo", nil), func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		_ = rc.EnableFullDuplex()
		_ = rc.Flush()
		buf := make([]byte, 100)
		for {
			n, err := r.Body.Read(buf)
			if n > 0 {
				_, _ = w.Write(bytes.ToUpper(buf[:n]))
				_ = rc.Flush()
			}
			if err != nil {
				return
			}
		}
	})
	for _, proto := range []string{"h1", "h2c"} {
		t.Run(proto, func(t *testing.T) {
			pr, pw := io.Pipe()
			r, _ := http.NewRequestWithContext(t.Context(), "POST", b.front.URL+"/fn/echo", pr)
			tr := &http.Transport{Protocols: new(http.Protocols)}
			tr.Protocols.SetHTTP1(proto == "h1")
			tr.Protocols.SetUnencryptedHTTP2(proto == "h2c")
			defer tr.CloseIdleConnections()
			resp, err := tr.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			buf := make([]byte, 100)
			for _, word := range []string{"one", "two", "three"} {
				_, _ = io.WriteString(pw, word)
				n, err := io.ReadAtLeast(resp.Body, buf, len(word))
				if err != nil || string(buf[:n]) != strings.ToUpper(word) {
					t.Fatalf("%q comes back as %q, %v", word, buf[:n], err)
				}
			}
			_ = pw.Close()
			if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 {
				t.Errorf("%q, %v", rest, err)
			}
		})
	}
	b.idle()
}

func TestServerSentEvents(t *testing.T) {
	t.Parallel()
	b := setup(t, invoke.Config{})
	next := make(chan string)
	const limit, idle = time.Second, 3 * time.Second
	b.backend(b.deploy("sse", func(c *functions.Config) {
		c.Timeout = functions.Duration(limit)
		c.IdleTimeout = functions.Duration(idle)
	}), func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		rc := http.NewResponseController(w)
		_ = rc.Flush()
		for {
			select {
			case ev, ok := <-next:
				if !ok {
					return
				}
				fmt.Fprintf(w, "data: %s\n\n", ev)
				_ = rc.Flush()
			case <-r.Context().Done():
				return
			}
		}
	})
	open := func() *http.Response {
		r, _ := http.NewRequestWithContext(t.Context(), "GET", b.front.URL+"/fn/sse", nil)
		resp, err := b.front.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	resp := open()
	buf := make([]byte, 100)
	for i, begun := 0, time.Now(); time.Since(begun) < 2*limit; i++ {
		// Longer than the timeout all together, shorter than the idle timeout each.
		time.Sleep(100 * time.Millisecond)
		next <- fmt.Sprint(i)
		if n, err := resp.Body.Read(buf); err != nil || string(buf[:n]) != fmt.Sprintf("data: %d\n\n", i) {
			t.Fatalf("%q, %v", buf[:n], err)
		}
	}
	close(next)
	if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 {
		t.Errorf("the end of the stream: %q, %v", rest, err)
	}
	resp.Body.Close()

	next = make(chan string)
	begun := time.Now()
	resp = open()
	defer resp.Body.Close()
	if _, err := io.ReadAll(resp.Body); err == nil {
		t.Error("a stream that was cut looks complete")
	}
	if took := time.Since(begun); took < idle {
		t.Errorf("an idle stream ended after %s", took)
	}
	b.idle()
	b.counted("a stream that was idle, and one that was not", func(s invoke.FunctionStats) bool { return s.Codes["idle-timeout"] == 1 && s.Codes["200"] == 1 })
}
