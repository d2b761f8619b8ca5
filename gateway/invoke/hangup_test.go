package invoke_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/invoke"
)

// End is what a lease asks of its worker.
func (n *node) End(_ functions.NodeID, id functions.InstanceID, reason string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.insts[id] == nil || n.insts[id].held == 0 {
		return errors.New("nobody holds a slot")
	}
	n.ended = append(n.ended, reason)
	return nil
}

// A function that is told that nobody waits has the way open for its answer; the connection serves nobody else, and nothing is sent again.
func TestHangUp(t *testing.T) {
	t.Parallel()
	b := setup(t, invoke.Config{})
	rev := b.deploy("hello", func(c *functions.Config) { c.Timeout = functions.Duration(20 * time.Second) })
	began := make(chan string, 10)
	stay := make(chan struct{})
	b.backend(rev, func(w http.ResponseWriter, r *http.Request) {
		began <- r.URL.Path
		switch r.URL.Path {
		case "/notices":
			<-r.Context().Done()
			_, _ = io.WriteString(w, "noticed")
		case "/closes":
			<-r.Context().Done()
			panic(http.ErrAbortHandler)
		case "/stays":
			<-stay
		}
	})
	type result struct {
		body string
		err  error
	}
	ask := func(ctx context.Context, path string) (*invoke.Lease, chan result) {
		l, err := b.inv.Lease(t.Context(), hello, invoke.Async)
		if err != nil {
			t.Fatal(err)
		}
		r, err := http.NewRequestWithContext(ctx, "GET", "http://hello.default"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		out := make(chan result, 1)
		go func() {
			resp, err := l.RoundTrip(r)
			if err != nil {
				out <- result{err: err}
				return
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			out <- result{string(body), err}
		}()
		return l, out
	}
	idle, err := b.inv.Lease(t.Context(), hello, invoke.Async)
	if err != nil {
		t.Fatal(err)
	}
	if told, sent := idle.HangUp(); told || sent {
		t.Error("a lease without a request hangs up")
	}
	idle.Release()
	for path, want := range map[string]string{"/notices": "noticed", "/closes": ""} {
		// The first one leaves a connection that is used again: one that ends is not taken for one that had ended before.
		l, out := ask(t.Context(), "/first")
		if r := <-out; r.err != nil {
			t.Fatal(r.err)
		}
		<-began
		l.Release()
		l, out = ask(t.Context(), path)
		<-began
		if told, _ := l.HangUp(); !told {
			t.Fatal("it cannot be told")
		}
		if r := <-out; r.body != want || (r.err == nil) != (want != "") {
			t.Errorf("%s: %+v", path, r)
		}
		l.Release()
	}
	ctx, cancel := context.WithCancel(t.Context())
	l, out := ask(ctx, "/stays")
	<-began
	if told, _ := l.HangUp(); !told {
		t.Fatal("it cannot be told")
	}
	select {
	case r := <-out:
		t.Fatalf("%+v", r)
	default:
	}
	cancel()
	if r := <-out; r.err == nil {
		t.Error("the request goes on")
	}
	if err := l.End("it stays"); err != nil {
		t.Error(err)
	}
	l.Release()
	close(stay)
	if len(began) != 0 {
		t.Errorf("%d requests more than were made", len(began))
	}
	b.idle()
	b.node.mu.Lock()
	defer b.node.mu.Unlock()
	if len(b.node.ended) != 1 || b.node.ended[0] != "it stays" {
		t.Errorf("ended: %v", b.node.ended)
	}
}
