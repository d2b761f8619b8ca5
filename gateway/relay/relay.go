package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tatami-faas/tatami/gateway/problem"
	"github.com/tatami-faas/tatami/internal/fault"
)

// Config says what a server does itself, and how it and the others reach each other.
type Config struct {
	// Listen is the address at which the other servers hand requests on to this one.
	Listen string
	// ListenTLS lets servers in only, DialTLS is how this server reaches the others. Required.
	ListenTLS, DialTLS *tls.Config
	// Local serves the public requests that Queued does not name. Required.
	Local  http.Handler
	Queued func(*http.Request) bool
	// Guard admits to the control API before a request is handed on. Required.
	Guard func(http.Handler) http.Handler
	// Names names the invocation that a public request without a key is to become, "" where it becomes none, and Named tells those names to Active's
	// handlers: again says that it may be one already. Nil: such a request is not made again when the server that has it dies.
	Names func(*http.Request) string
	Named func(ctx context.Context, id string, again bool) context.Context
	// Room is for the bodies, in bytes, that are kept to make requests again and are not small. Default 64 MiB.
	Room int64
	// Patience is how long a request waits for a server that leads. Default 10s.
	Patience time.Duration
	// TakeOver is how long a server that is asked, and is not known to lead, waits for that before it says so. Default 1s.
	TakeOver time.Duration
}

// Relay is a server's part in that. It is safe for concurrent use.
type Relay struct {
	cfg    Config
	log    *slog.Logger
	active atomic.Pointer[active]
	proxy  *proxy
	// claimed is what is used, or wanted, of the room for bodies.
	claimed atomic.Int64

	mu sync.Mutex
	// leader is where the server that leads takes requests; empty while there is none. Changed is closed, and made anew, when that changes.
	leader  string
	changed chan struct{}
	// retired says that this server has led, and does not begin to again.
	retired bool
}

// Headers of requests that are handed on.
const (
	headerKind = "Tatami-Relay"
	headerMark = "Tatami-Relay-Mark"
	// headerClient is whose request it is.
	headerClient = "Tatami-Relay-Client"
	// headerName is the id of the invocation that it is to become, headerAgain says that it may be one already.
	headerName  = "Tatami-Relay-Invocation"
	headerAgain = "Tatami-Relay-Again"

	kindPublic  = "public"
	kindControl = "control"
)

const (
	defaultPatience = 10 * time.Second
	defaultTakeOver = time.Second
)

// New makes a relay; it starts nothing.
func New(cfg Config, log *slog.Logger) *Relay {
	if cfg.Patience == 0 {
		cfg.Patience = defaultPatience
	}
	if cfg.TakeOver == 0 {
		cfg.TakeOver = defaultTakeOver
	}
	if cfg.Room == 0 {
		cfg.Room = defaultRoom
	}
	r := &Relay{cfg: cfg, log: log, changed: make(chan struct{})}
	r.proxy = newProxy(cfg.DialTLS)
	return r
}

// Lead has this server serve what only the one that leads can, until Retire.
func (r *Relay) Lead(a Active) {
	r.active.Store(newActive(a))
	r.mu.Lock()
	r.retired = false
	r.mu.Unlock()
	r.wake()
}

// Retire has the next server that leads serve that from now on, and returns when what this one has begun is over, or so long has passed. What is only
// read is not waited for.
func (r *Relay) Retire(within time.Duration) {
	a := r.active.Swap(nil)
	if a == nil {
		return
	}
	r.mu.Lock()
	r.retired = true
	r.mu.Unlock()
	r.wake()
	a.retire(within)
}

// Leads reports whether this server serves what only the one that leads can.
func (r *Relay) Leads() bool { return r.active.Load() != nil }

// Point tells where the server that leads takes requests; empty: nobody leads.
func (r *Relay) Point(address string) {
	r.mu.Lock()
	if r.leader != address {
		// It may be this one that leads next.
		r.leader, r.retired = address, false
	}
	r.mu.Unlock()
	r.wake()
}

// leads tells where the server that leads takes requests; empty while there is none. Changed is closed when that changes.
func (r *Relay) leads() (at string, changed <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.leader, r.changed
}

// wake has those look again who wait for a server that leads.
func (r *Relay) wake() {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.changed)
	r.changed = make(chan struct{})
}

// Run takes the requests of the other servers until ctx ends.
func (r *Relay) Run(ctx context.Context) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", r.cfg.Listen)
	if err != nil {
		return fault.Wrap(fault.CodeConflict, err, "the other servers cannot reach this one at %s", r.cfg.Listen).WithField("relay-listen").
			WithHint("end the program that has the port (sudo ss -ltnp), or give another --relay-listen")
	}
	srv := &http.Server{
		Handler: http.HandlerFunc(r.serve), TLSConfig: r.cfg.ListenTLS, ReadHeaderTimeout: defaultPatience, IdleTimeout: time.Minute,
		ErrorLog: slog.NewLogLogger(r.log.Handler(), slog.LevelDebug), Protocols: new(http.Protocols),
	}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetHTTP2(true)
	defer r.proxy.close()
	defer context.AfterFunc(ctx, func() { _ = srv.Close() })()
	if err := srv.ServeTLS(l, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving the other servers: %w", err)
	}
	return nil
}

// serve answers what another server hands on. It is not handed on again: the other server looks anew for who leads.
func (r *Relay) serve(w http.ResponseWriter, req *http.Request) {
	kind, mark := req.Header.Get(headerKind), req.Header.Get(headerMark)
	req = r.received(req)
	a := r.await(req.Context())
	if a == nil || !a.enter(req) {
		w.Header().Set(headerMark, mark)
		w.WriteHeader(http.StatusMisdirectedRequest)
		return
	}
	defer a.leave(req)
	if kind == kindControl {
		// The server that hands it on has let it in, as this one's socket does.
		ctx := context.WithValue(req.Context(), http.LocalAddrContextKey, net.Addr(&net.UnixAddr{Name: "relay", Net: "unix"}))
		a.Control.ServeHTTP(w, req.WithContext(ctx))
		return
	}
	a.Public.ServeHTTP(w, req)
}

// await returns what this server serves while it leads; one that may be about to is waited for. Nil where it is not.
func (r *Relay) await(ctx context.Context) *active {
	over := time.NewTimer(min(r.cfg.Patience, r.cfg.TakeOver))
	defer over.Stop()
	for {
		r.mu.Lock()
		changed, retired := r.changed, r.retired
		r.mu.Unlock()
		if a := r.active.Load(); a != nil || retired {
			return a
		}
		select {
		case <-changed:
		case <-over.C:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

func nobody() error {
	return fault.New(fault.CodeUnavailable, "no server leads the cluster").WithHint("try again in a few seconds; a cluster needs most of its servers: tatami cluster ls")
}

// Public serves the public listener.
func (r *Relay) Public() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		a := r.active.Load()
		switch queued := r.cfg.Queued(req); {
		case !queued && a != nil:
			a.Public.ServeHTTP(w, req)
		case !queued:
			r.cfg.Local.ServeHTTP(w, req)
		case !a.serve(w, req, kindPublic):
			r.hand(w, req, kindPublic)
		}
	})
}

// Control serves the control listener.
func (r *Relay) Control() http.Handler {
	away := r.cfg.Guard(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { r.hand(w, req, kindControl) }))
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if !r.active.Load().serve(w, req, kindControl) {
			away.ServeHTTP(w, req)
		}
	})
}

// hand has the server that leads answer, which this one may become meanwhile.
func (r *Relay) hand(w http.ResponseWriter, req *http.Request, kind string) {
	rep := r.repeatableOf(req, kind)
	defer r.release(rep)
	over := time.NewTimer(r.cfg.Patience)
	defer over.Stop()
	for {
		at, changed := r.leads()
		if r.active.Load().serve(w, r.tell(req, rep), kind) {
			return
		}
		var again <-chan time.Time
		if at != "" {
			switch r.proxy.pass(w, req, &passing{at: at, kind: kind, rep: rep}, func() bool { now, _ := r.leads(); return now != at }) {
			case answered:
				return
			case lost:
				rep.left--
				rep.rewind(req)
				// It may have been under way for long.
				over.Reset(r.cfg.Patience)
			case refused:
				rep.rewind(req)
				// It is passed on soon enough.
				over.Reset(r.cfg.Patience)
			}
			timer := time.NewTimer(proxyRetry)
			defer timer.Stop()
			again = timer.C
		}
		select {
		case <-changed:
		case <-again:
		case <-over.C:
			problem.Write(w, req, nobody())
			return
		case <-req.Context().Done():
			return
		}
	}
}
