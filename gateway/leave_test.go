package gateway

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Clients that repeat nothing and look elsewhere where they are not let in lose no request when a gateway ends, whether they keep their connections or make
// one for each request, and whichever server behind the listener answers.
func TestEndLosesNothing(t *testing.T) {
	t.Parallel()
	g, stop := run(t, Config{PublicAddr: "127.0.0.1:0", LameDuck: 4 * time.Second}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if b, err := io.ReadAll(r.Body); err != nil || string(b) != "said" {
			t.Errorf("%s %q %v", r.URL, b, err)
		}
		_, _ = io.WriteString(w, "done")
	}), say("control"))
	var clients sync.WaitGroup
	var answered, told atomic.Int64
	for i := range 12 {
		clients.Go(func() {
			tr := &http.Transport{MaxConnsPerHost: 1, DisableKeepAlives: i%2 == 0, Protocols: new(http.Protocols)}
			defer tr.CloseIdleConnections()
			tr.Protocols.SetHTTP1(true)
			path := []string{"/fn/x", "/async/x"}[i/2%2]
			for {
				// A body that cannot be had again keeps the client from repeating it.
				resp, err := (&http.Client{Transport: tr}).Post("http://"+g.Addrs().Public+path, "text/plain", io.MultiReader(strings.NewReader("said")))
				var op *net.OpError
				if errors.As(err, &op) && op.Op == "dial" {
					return
				}
				if err != nil {
					t.Errorf("%s: %v", path, err)
					return
				}
				if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "done" {
					t.Errorf("%s: %q %v", path, b, err)
				}
				resp.Body.Close()
				answered.Add(1)
				if resp.Close && i%2 == 1 {
					told.Add(1)
				}
			}
		})
	}
	for answered.Load() < 1000 {
		time.Sleep(time.Millisecond)
	}
	if err := stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
	clients.Wait()
	if told.Load() < 6 {
		t.Errorf("%d answers said that the server is about to end", told.Load())
	}
}

// From the moment on that a gateway leaves, plain answers say so, while it goes on taking requests.
func TestLeavingIsTold(t *testing.T) {
	t.Parallel()
	g, err := New(Config{PublicAddr: "127.0.0.1:0"}, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), say("control"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	front := g.front(t.Context(), &guests{Listener: l, most: 10, away: g.upgrades.count})
	served := make(chan error, 1)
	go func() { served <- front.Serve() }()
	client := &http.Client{Transport: &http.Transport{}}
	get := func() *http.Response {
		t.Helper()
		resp, err := client.Get("http://" + l.Addr().String() + "/fn/x")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%s", resp.Status)
		}
		return resp
	}
	if get().Close {
		t.Error("an answer ends its connection before the gateway leaves")
	}
	g.leave(t.Context(), front)
	// One on the connection from before, one on a new one.
	for range 2 {
		if !get().Close {
			t.Error("an answer keeps its connection while the gateway leaves")
		}
	}
	if err := front.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		t.Errorf("Serve: %v", err)
	}
}
