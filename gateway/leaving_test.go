package gateway

import (
	"errors"
	"log/slog"
	"net"
	"net/http"
	"testing"
)

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
