//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/tatami-faas/tatami/tests/e2e/harness"
)

// What HTTP has passes through to the function and back: any method, path, query, header, trailer, streams and upgrades.
func TestPassThrough(t *testing.T) {
	everywhere(t, passThrough)
}

func passThrough(t *testing.T, s *harness.Server) {
	s.Deploy("probe", "probe", "")

	type echo struct {
		Method, Path, Query, Host, Body string
		URI                             string
		Header                          http.Header `json:"headers"`
	}
	read := func(t *testing.T, body string) (e echo) {
		t.Helper()
		if err := json.Unmarshal([]byte(body), &e); err != nil {
			t.Fatalf("%v: %s", err, body)
		}
		return e
	}
	t.Run("methods", func(t *testing.T) {
		for _, m := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE"} {
			_, body := s.Do(m, "/fn/probe/echo/a%2Fb/c?x=1&y=%20z", "hello", http.Header{"X-Mine": {"1", "2"}, "Connection": {"X-Hop"}, "X-Hop": {"no"}})
			e := read(t, body)
			if e.Method != m || e.URI != "/echo/a%2Fb/c?x=1&y=%20z" || e.Body != "hello" {
				t.Errorf("%s: %+v", m, e)
			}
			if len(e.Header["X-Mine"]) != 2 || e.Header.Get("X-Hop") != "" {
				t.Errorf("%s: headers %v", m, e.Header)
			}
			for _, set := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "Traceparent", "Tatami-Invocation-Id"} {
				if e.Header.Get(set) == "" {
					t.Errorf("%s: the function sees no %s", m, set)
				}
			}
		}
	})
	t.Run("host routing", func(t *testing.T) {
		req, _ := http.NewRequestWithContext(t.Context(), "GET", s.URL("/fn/other?q"), nil)
		req.Host = "probe.default.fn.test"
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		if e := read(t, string(b)); e.Path != "/fn/other" || e.Host != req.Host {
			t.Errorf("%+v", e)
		}
	})
	t.Run("trailers", func(t *testing.T) {
		req, _ := http.NewRequestWithContext(t.Context(), "POST", s.URL("/fn/probe/trailers"), io.MultiReader(strings.NewReader("x")))
		req.Trailer = http.Header{"X-Sum": {"42"}}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		if !strings.Contains(string(b), "42") || len(resp.Trailer) == 0 {
			t.Errorf("the function saw %s, the caller %v", b, resp.Trailer)
		}
	})
	t.Run("server-sent events", func(t *testing.T) {
		// Held back until its end, the stream would not begin within the test's time.
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		req, _ := http.NewRequestWithContext(ctx, "GET", s.URL("/fn/probe/stream?n=600&ms=500"), nil)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if line, err := bufio.NewReader(resp.Body).ReadString('\n'); err != nil {
			t.Errorf("the first event: %q, %v", line, err)
		}
	})
	t.Run("both ways at once", func(t *testing.T) {
		pr, pw := io.Pipe()
		req, _ := http.NewRequestWithContext(t.Context(), "POST", s.URL("/fn/probe/cat"), pr)
		got := make(chan *http.Response, 1)
		go func() {
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Error(err)
			}
			got <- resp
		}()
		fmt.Fprintln(pw, "first")
		resp := <-got
		if resp == nil {
			t.FailNow()
		}
		defer resp.Body.Close()
		r := bufio.NewReader(resp.Body)
		for _, want := range []string{"first\n", "second\n"} {
			if line, err := r.ReadString('\n'); err != nil || line != want {
				t.Fatalf("%q, %v", line, err)
			}
			if want == "first\n" {
				fmt.Fprintln(pw, "second")
			}
		}
		pw.Close()
	})
	t.Run("websocket", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		c, _, err := websocket.Dial(ctx, "ws://"+s.Public+"/fn/probe/ws", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer c.CloseNow()
		for _, msg := range []string{"one", strings.Repeat("x", 10_000)} {
			if err := c.Write(ctx, websocket.MessageText, []byte(msg)); err != nil {
				t.Fatal(err)
			}
			if _, got, err := c.Read(ctx); err != nil || string(got) != msg {
				t.Fatalf("%q, %v", got, err)
			}
		}
		if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
			t.Error(err)
		}
	})
	t.Run("a large body", func(t *testing.T) {
		_, body := s.Do("POST", "/fn/probe/upload", strings.Repeat("x", 20<<20), nil)
		if !strings.Contains(body, fmt.Sprint(20<<20)) {
			t.Errorf("%s", body)
		}
	})
}

// A function that speaks HTTP/2 in clear text is called over it, whatever its caller speaks, as gRPC needs it: messages both ways at once,
// then trailers.
func TestH2C(t *testing.T) {
	everywhere(t, h2c)
}

func h2c(t *testing.T, s *harness.Server) {
	s.Deploy("h2", "probe", "protocol: h2c\nreadiness: {path: /ready}\n")
	two := &http.Transport{Protocols: new(http.Protocols)}
	two.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(two.CloseIdleConnections)
	for name, client := range map[string]*http.Client{"http1": http.DefaultClient, "h2c": {Transport: two}} {
		t.Run(name, func(t *testing.T) {
			resp, err := client.Post(s.URL("/fn/h2/echo/a%2Fb?x"), "text/plain", strings.NewReader("hello"))
			if err != nil {
				t.Fatal(err)
			}
			var e struct{ Proto, URI, Body string }
			if err := json.NewDecoder(resp.Body).Decode(&e); err != nil || e.Proto != "HTTP/2.0" || e.URI != "/echo/a%2Fb?x" || e.Body != "hello" {
				t.Errorf("%+v, %v", e, err)
			}
			resp.Body.Close()
			resp, err = client.Post(s.URL("/fn/h2/trailers"), "text/plain", strings.NewReader("x"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadAll(resp.Body); err != nil || len(resp.Trailer) == 0 {
				t.Errorf("trailers %v, %v", resp.Trailer, err)
			}
			resp.Body.Close()
			pr, pw := io.Pipe()
			req, _ := http.NewRequestWithContext(t.Context(), "POST", s.URL("/fn/h2/cat"), pr)
			if resp, err = client.Do(req); err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			r := bufio.NewReader(resp.Body)
			for _, want := range []string{"first\n", "second\n"} {
				fmt.Fprint(pw, want)
				if line, err := r.ReadString('\n'); err != nil || line != want {
					t.Fatalf("%q, %v", line, err)
				}
			}
			pw.Close()
			if _, err := r.ReadByte(); err != io.EOF {
				t.Error(err)
			}
		})
	}
	if st := result(t, s, async(t, s, "h2/echo", "queued")); st.State != "succeeded" || !strings.Contains(st.Body, "HTTP/2.0") {
		t.Errorf("%+v", st)
	}
}

// Many callers meet functions that sleep: every one is answered, and the number of instances follows the demand.
func TestBurstFromZero(t *testing.T) {
	s := harness.Start(t)
	const fns, callers = 6, 10
	for i := range fns {
		s.Deploy(fmt.Sprintf("f%d", i), "probe", "cpu: 100m\nmemory: 32Mi\nephemeral: 8Mi\nconcurrency: 5\nscale: {max: 3, keepAlive: 1s}\n")
	}
	for i := range fns {
		eventually(t, 20*time.Second, "everything sleeps", func() bool { return len(instances(t, s, fmt.Sprintf("f%d", i))) == 0 })
	}
	var wg sync.WaitGroup
	for i := range fns * callers {
		wg.Go(func() {
			resp, body, err := s.TryDo("GET", fmt.Sprintf("/fn/f%d/sleep?ms=200", i%fns), "", nil)
			if err != nil || resp.StatusCode != http.StatusOK {
				t.Errorf("%v %s %v", resp, body, err)
			}
		})
	}
	wg.Wait()
}
