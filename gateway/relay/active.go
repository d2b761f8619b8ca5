package relay

import (
	"net/http"
	"sync"
	"time"
)

// Active is what a server that leads serves besides.
type Active struct{ Public, Control http.Handler }

// active counts what it has begun that changes something: whoever leads next does not know of it yet.
type active struct {
	Active

	mu      sync.Mutex
	under   int
	retired bool
	// idle is closed once it is retired and nothing is under way.
	idle chan struct{}
}

func newActive(a Active) *active { return &active{Active: a, idle: make(chan struct{})} }

// serve answers a request, unless the server does not lead, or leads no longer: then it is false, and nothing was read or answered.
func (a *active) serve(w http.ResponseWriter, r *http.Request, kind string) bool {
	if a == nil || !a.enter(r) {
		return false
	}
	defer a.leave(r)
	if kind == kindControl {
		a.Control.ServeHTTP(w, r)
	} else {
		a.Public.ServeHTTP(w, r)
	}
	return true
}

// enter begins a request; false where the server leads no longer.
func (a *active) enter(r *http.Request) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.retired && changes(r) {
		a.under++
	}
	return !a.retired
}

func (a *active) leave(r *http.Request) {
	if !changes(r) {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.under--; a.under == 0 && a.retired {
		close(a.idle)
	}
}

// retire lets no request in any more, and returns when none is under way, or so long has passed.
func (a *active) retire(within time.Duration) {
	a.mu.Lock()
	a.retired = true
	if a.under == 0 {
		close(a.idle)
	}
	a.mu.Unlock()
	over := time.NewTimer(within)
	defer over.Stop()
	select {
	case <-a.idle:
	case <-over.C:
	}
}

// changes reports whether a request may change something.
func changes(r *http.Request) bool { return r.Method != http.MethodGet && r.Method != http.MethodHead }
