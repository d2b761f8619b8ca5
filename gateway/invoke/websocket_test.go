package invoke_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/invoke"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// A WebSocket that the platform ends, or whose instance ends, is closed with the reason, unless that would fall into a message.
func TestWebSocketFarewell(t *testing.T) {
	t.Parallel()
	b := setup(t, invoke.Config{})
	rev := b.deploy("ws", nil)
	kill := make(chan struct{})
	socket := func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		if err := c.Write(context.Background(), websocket.MessageText, []byte(strings.Repeat("x", 70_000))); err != nil {
			return
		}
		if r.URL.Query().Get("half") != "" {
			m, err := c.Writer(context.Background(), websocket.MessageText)
			if err != nil {
				return
			}
			// More than its buffer, so that the head of a frame and a part of it go out.
			go func() { _, _ = m.Write(make([]byte, 64<<20)) }()
		}
		if r.URL.Query().Get("bye") != "" {
			_ = c.Close(websocket.StatusInternalError, "its own words")
			return
		}
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		go func() {
			select {
			case <-kill:
				cancel()
			case <-ctx.Done():
			}
		}()
		_, _, _ = c.Read(ctx)
	}
	id := b.backend(rev, socket)
	b.backend(b.deploy("idle", func(c *functions.Config) { c.IdleTimeout = functions.Duration(time.Second) }), socket)
	cuts := make(chan context.CancelCauseFunc, 1)
	b.put(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancelCause(r.Context())
		defer cancel(nil)
		if r.URL.Query().Get("stop") != "" {
			cuts <- cancel
		}
		b.serve(w, r.WithContext(ctx))
	})
	openAt := func(name, query string) *websocket.Conn {
		c, _, err := websocket.Dial(t.Context(), "ws"+strings.TrimPrefix(b.front.URL, "http")+"/fn/"+name+"?"+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		c.SetReadLimit(1 << 20)
		if _, m, err := c.Read(t.Context()); err != nil || len(m) != 70_000 {
			t.Fatalf("%d bytes, %v", len(m), err)
		}
		return c
	}
	open := func(query string) *websocket.Conn { return openAt("ws", query) }
	wantEnd := func(c *websocket.Conn, code websocket.StatusCode, says string) {
		t.Helper()
		_, _, err := c.Read(t.Context())
		var end websocket.CloseError
		if !errors.As(err, &end) || end.Code != code || !strings.Contains(end.Reason, says) {
			t.Errorf("%v, want %d with %q", err, code, says)
		}
		_ = c.CloseNow()
	}
	wantEnd(open("bye=1"), websocket.StatusInternalError, "its own words")
	wantEnd(openAt("idle", ""), websocket.StatusGoingAway, "idle timeout of 1s")

	c := open("stop=1")
	(<-cuts)(fault.New(fault.CodeDraining, "the server is stopping"))
	wantEnd(c, websocket.StatusGoingAway, "the server is stopping")

	c, half := open(""), open("half=1")
	_, r, err := half.Reader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b.node.end(t, bus.Departure{Instance: id, State: functions.InstanceDraining, Reason: "revision rev_x has the traffic"})
	close(kill)
	wantEnd(c, websocket.StatusGoingAway, "the instance ended: revision rev_x has the traffic")
	if n, err := io.Copy(io.Discard, r); err == nil || websocket.CloseStatus(err) != -1 {
		t.Errorf("a message that broke off came whole: %d bytes, %v", n, err)
	}
	_ = half.CloseNow()
	b.idle()

	// One that crashes.
	crash := make(chan struct{})
	id = b.backend(rev, func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		_ = c.Write(context.Background(), websocket.MessageText, []byte(strings.Repeat("x", 70_000)))
		<-crash
		_ = c.CloseNow()
	})
	c = open("")
	close(crash)
	b.node.end(t, bus.Departure{Instance: id, State: functions.InstanceFailed, Reason: "exited with code 2"})
	wantEnd(c, websocket.StatusInternalError, "exited with code 2")
	b.idle()
}
