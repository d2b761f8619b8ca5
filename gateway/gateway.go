package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tatami-faas/tatami/gateway/http1"
	"github.com/tatami-faas/tatami/gateway/invoke"
	"github.com/tatami-faas/tatami/gateway/problem"
	"github.com/tatami-faas/tatami/internal/fault"
)

const (
	// cutGrace is how long handlers may take to return after their requests were cut.
	cutGrace = 2 * time.Second
	// mostStreams is how many requests a client may have under way on one connection of HTTP/2.
	mostStreams = 250
)

// Gateway serves the public and the control handler.
type Gateway struct {
	cfg             Config
	public, control http.Handler
	log             *slog.Logger
	ready           chan struct{}
	addrs           Addrs
	draining        atomic.Bool
	upgrades        counter
}

// Addrs are the addresses that the gateway listens on; a field is empty where it does not.
type Addrs struct {
	Public, Control, Socket string
}

// New makes a gateway; it listens in Run.
func New(cfg Config, public, control http.Handler, log *slog.Logger) (*Gateway, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Gateway{cfg: cfg, public: public, control: control, log: log, ready: make(chan struct{})}, nil
}

// Ready is closed once every listener is open.
func (g *Gateway) Ready() <-chan struct{} { return g.ready }

// Addrs returns where the gateway listens; it is valid once Ready is closed.
func (g *Gateway) Addrs() Addrs { return g.addrs }

// Run serves until ctx ends. Then it tells of its end for Config.LameDuck, takes no more connections, waits for the requests under way up to the drain
// timeout, cuts the rest with the fault draining, and returns nil. It is called once.
func (g *Gateway) Run(ctx context.Context) error {
	ls, err := g.listen(ctx)
	if err != nil {
		return err
	}
	base, cut := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cut(nil)
	public := g.server(base, bounded(http.HandlerFunc(g.servePublic)))
	public.Protocols = new(http.Protocols)
	public.Protocols.SetHTTP1(true)
	public.Protocols.SetUnencryptedHTTP2(true)
	public.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: mostStreams, WriteByteTimeout: g.cfg.WriteTimeout}
	in := &guests{Listener: ls.public, most: g.cfg.MaxConnections, away: g.upgrades.count}
	public.ConnState = func(c net.Conn, state http.ConnState) { in.note(http1.Accepted(c), state) }
	front := g.front(base, in)
	control := g.server(base, bounded(g.control))
	group, gctx := errgroup.WithContext(ctx)
	serve := func(serve func() error) {
		group.Go(func() error {
			if err := serve(); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		})
	}
	serve(front.Serve)
	serve(func() error { return public.Serve(front.Rest()) })
	for _, l := range ls.control {
		serve(func() error { return control.Serve(l) })
	}
	close(g.ready)
	group.Go(func() error {
		<-gctx.Done()
		g.leave(ctx, front)
		g.drain(ctx, []server{front, public}, control, cut)
		return nil
	})
	return group.Wait()
}

// front serves the requests that most of the public listener's are: plain ones to functions. All others are for net/http.
func (g *Gateway) front(base context.Context, in *guests) *http1.Server {
	domain := g.cfg.Domain
	return http1.New(http1.Config{
		Takes: func(host, target string) bool {
			if _, below := splitHost(host, domain); below {
				return true
			}
			return strings.HasPrefix(target, functionPrefix)
		},
		Note: in.noted, Base: context.WithValue(base, drainKey{}, &g.draining), MaxHeader: g.cfg.MaxHeader, HeaderTimeout: g.cfg.HeaderTimeout,
		IdleTimeout: g.cfg.IdleTimeout, WriteTimeout: g.cfg.WriteTimeout, Awake: g.cfg.Awake,
	}, in, g.public, g.log)
}

func (g *Gateway) server(base context.Context, h http.Handler) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: g.cfg.HeaderTimeout, IdleTimeout: g.cfg.IdleTimeout, MaxHeaderBytes: 2 * g.cfg.MaxHeader,
		ErrorLog:    slog.NewLogLogger(g.log.Handler(), slog.LevelWarn),
		BaseContext: func(net.Listener) context.Context { return context.WithValue(base, drainKey{}, &g.draining) },
	}
}

type drainKey struct{}

// isDraining reports whether the server of the request is about to end.
func isDraining(r *http.Request) bool {
	b, _ := r.Context().Value(drainKey{}).(*atomic.Bool)
	return b != nil && b.Load()
}

// bounded waits for no body that the handler left unread, and takes the deadline off a connection that the answer before put on it.
func bounded(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 1 {
			_ = http.NewResponseController(w).SetWriteDeadline(time.Time{})
		}
		if r.ContentLength != 0 {
			defer problem.Unread(w, r)
		}
		if isDraining(r) && len(r.Header["Upgrade"]) == 0 {
			// Of HTTP/2 it is that no more requests are to come.
			w.Header().Set("Connection", "close")
		}
		h.ServeHTTP(w, r)
	})
}

// servePublic counts what the server forgets: connections that changed their protocol.
func (g *Gateway) servePublic(w http.ResponseWriter, r *http.Request) {
	g.cfg.Awake.Touch()
	if len(r.Header["Upgrade"]) > 0 && invoke.UpgradeOf(r.Header) != "" {
		g.upgrades.add(1)
		defer g.upgrades.add(-1)
	}
	g.public.ServeHTTP(w, r)
}

// server is what drain needs of one.
type server interface {
	Shutdown(ctx context.Context) error
	Close() error
}

// leave tells load balancers and clients to look elsewhere, and gives them time for that.
func (g *Gateway) leave(ctx context.Context, front *http1.Server) {
	g.draining.Store(true)
	front.Leave()
	if ctx.Err() != nil && g.cfg.LameDuck > 0 {
		g.log.Info("requests are taken for a while yet, while load balancers look elsewhere", "dur_ms", g.cfg.LameDuck.Milliseconds())
		time.Sleep(g.cfg.LameDuck)
	}
}

// drain ends all servers: the public ones first, so that the control API tells how it goes.
func (g *Gateway) drain(ctx context.Context, public []server, control server, cut context.CancelCauseFunc) {
	base := context.WithoutCancel(ctx)
	wait, cancel := context.WithTimeout(base, g.cfg.DrainTimeout)
	defer cancel()
	late := false
	// One after the other: what has come to the front may be for the server behind it.
	for _, s := range public {
		late = s.Shutdown(wait) != nil || late
	}
	if late || g.upgrades.wait(wait) != nil {
		g.log.Warn("requests were cut: they did not end within the drain timeout", "dur_ms", g.cfg.DrainTimeout.Milliseconds())
	}
	cut(fault.New(fault.CodeDraining, "the server is stopping").WithRetryAfter(time.Second))
	end, cancelEnd := context.WithTimeout(base, cutGrace)
	defer cancelEnd()
	// Event streams of the control API end now, with the base context.
	for _, s := range append(public, control) {
		if s.Shutdown(end) != nil {
			_ = s.Close()
		}
	}
	if g.upgrades.wait(end) != nil {
		g.log.Error("upgraded connections did not end")
	}
}

type listeners struct {
	public  net.Listener
	control []net.Listener
}

// listen opens every listener or none.
func (g *Gateway) listen(ctx context.Context) (ls listeners, err error) {
	var open []net.Listener
	defer func() {
		if err != nil {
			for _, l := range open {
				_ = l.Close()
			}
		}
	}()
	if ls.public, err = listenTCP(ctx, "public-addr", g.cfg.PublicAddr); err != nil {
		return ls, err
	}
	open = append(open, ls.public)
	g.addrs.Public = ls.public.Addr().String()
	if g.cfg.ControlAddr != "" {
		l, err := listenTCP(ctx, "control-addr", g.cfg.ControlAddr)
		if err != nil {
			return ls, err
		}
		open, ls.control = append(open, l), append(ls.control, l)
		g.addrs.Control = l.Addr().String()
	}
	if g.cfg.ControlSocket != "" {
		l, err := listenUnix(ctx, g.cfg.ControlSocket)
		if err != nil {
			return ls, err
		}
		open, ls.control = append(open, l), append(ls.control, l)
		g.addrs.Socket = g.cfg.ControlSocket
	}
	return ls, nil
}

// counter counts what runs and lets one wait for none.
type counter struct {
	mu   sync.Mutex
	n    int
	zero chan struct{}
}

func (c *counter) add(d int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n += d
	if c.n == 0 && c.zero != nil {
		close(c.zero)
		c.zero = nil
	}
}

func (c *counter) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

func (c *counter) wait(ctx context.Context) error {
	c.mu.Lock()
	if c.n == 0 {
		c.mu.Unlock()
		return nil
	}
	if c.zero == nil {
		c.zero = make(chan struct{})
	}
	zero := c.zero
	c.mu.Unlock()
	select {
	case <-zero:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
