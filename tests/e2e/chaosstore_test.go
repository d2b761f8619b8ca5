//go:build e2e

package e2e

import (
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"
)

// effectsAt is where the outside keeps the effects of functions.
const effectsAt = internetAddr + ":81"

// effect is what a function made known outside of itself.
type effect struct {
	attempt int
	// began is when the attempt did, by the function's clock, which is this machine's.
	began time.Time
	// key is the request's body.
	key string
}

// effects is a store outside of the system under test. It counts each effect of what is sent to /blind, and the first of each invocation of
// what is sent to /once.
type effects struct {
	mu     sync.Mutex
	counts map[string]int
	all    map[string][]effect
}

// keepEffects serves a store at effectsAt until the test ends.
func keepEffects(t *testing.T, w *world) *effects {
	t.Helper()
	e := &effects{counts: map[string]int{}, all: map[string][]effect{}}
	var l net.Listener
	w.outside.Must(func() (err error) {
		l, err = net.Listen("tcp4", effectsAt)
		return err
	})
	srv := &http.Server{Handler: e}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l)
	}()
	t.Cleanup(func() {
		srv.Close()
		<-done
	})
	return e
}

// ServeHTTP takes an effect.
func (e *effects) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	id := q.Get("id")
	attempt, err := strconv.Atoi(q.Get("attempt"))
	began, berr := strconv.ParseInt(q.Get("began"), 10, 64)
	body, rerr := io.ReadAll(r.Body)
	if err != nil || berr != nil || rerr != nil || id == "" {
		http.Error(w, "not understood", http.StatusBadRequest)
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all[id] = append(e.all[id], effect{attempt, time.Unix(0, began), string(body)})
	if r.URL.Path == "/blind" || e.counts[id] == 0 {
		e.counts[id]++
	}
}

// of returns what is known of an invocation.
func (e *effects) of(id string) (count int, all []effect) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.counts[id], append([]effect{}, e.all[id]...)
}

// keys counts the invocations that made an effect, by their keys.
func (e *effects) keys() map[string]int {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := map[string]int{}
	for _, made := range e.all {
		out[made[0].key]++
	}
	return out
}
