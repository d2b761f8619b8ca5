package http1_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/gateway/http1"
)

// teller closes a channel when it is told.
type teller struct {
	once sync.Once
	told chan struct{}
}

func newTeller() *teller { return &teller{told: make(chan struct{})} }

func (t *teller) Gone() { t.once.Do(func() { close(t.told) }) }

type watchable interface {
	Watch(ctx context.Context, by http1.Watcher) bool
	Unwatch() bool
}

// Whoever watches is told when the client leaves or the server's context ends, until it no longer watches.
func TestWatch(t *testing.T) {
	t.Parallel()
	for name, ends := range map[string]func(c net.Conn, cancel func()){
		"the client leaves": func(c net.Conn, _ func()) { _ = c.Close() },
		"the server ends":   func(_ net.Conn, cancel func()) { cancel() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base, cancel := context.WithCancel(t.Context())
			defer cancel()
			began, done := make(chan struct{}), make(chan struct{})
			_, addr := start(t, http1.Config{Base: base}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				defer close(done)
				a, ok := w.(watchable)
				if !ok {
					t.Error("the answer cannot be watched")
					return
				}
				other, cancelOther := context.WithCancel(r.Context())
				defer cancelOther()
				before, now, late := newTeller(), newTeller(), newTeller()
				if a.Watch(other, before) {
					t.Error("a context that is not the connection's is watched")
				}
				if !a.Watch(r.Context(), before) {
					t.Error("the connection's context is not watched")
				}
				if a.Unwatch() {
					t.Error("told before the end")
				}
				a.Watch(r.Context(), now)
				close(began)
				<-now.told
				if r.Context().Err() == nil {
					t.Error("told before the context's end")
				}
				select {
				case <-before.told:
					t.Error("told who no longer watches")
				default:
				}
				if !a.Unwatch() {
					t.Error("not told at the end")
				}
				// Who comes too late is told at once.
				a.Watch(r.Context(), late)
				<-late.told
			}))
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := io.WriteString(c, "GET /fn/x HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			<-began
			ends(c, cancel)
			select {
			case <-done:
			case <-time.After(time.Minute):
				t.Error("nobody was told")
			}
		})
	}
}
