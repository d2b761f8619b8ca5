package http1

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/tatami-faas/tatami/internal/awake"
	"github.com/tatami-faas/tatami/internal/socket"
)

// Config says what the server takes and how long it waits. Durations of 0 are no bound.
type Config struct {
	// Takes reports whether a request for the host and the target is one for the handler; all others are handed over. Nil takes all.
	Takes func(host, target string) bool
	// Note is asked at the beginning of a connection who is told what it does, as http.Server's ConnState is, but for the states of a connection that
	// was handed over. May be nil.
	Note func(net.Conn) func(http.ConnState)
	// Base is what the contexts of requests are made from. Default context.Background.
	Base context.Context
	// MaxHeader is the longest head that is read here, in bytes; net/http says what is too long. Default, and at most, 8 KiB.
	MaxHeader int
	// HeaderTimeout is how long a client may take to send a head; a connection's first one counts from its beginning.
	HeaderTimeout time.Duration
	// IdleTimeout is how long a connection is kept for the next request.
	IdleTimeout time.Duration
	// WriteTimeout is how long a client may take for the rest of an answer whose handler has returned.
	WriteTimeout time.Duration
	// Awake is told when connections and requests come. May be nil.
	Awake *awake.Keeper
}

// Server serves ordinary requests. It is made by New.
type Server struct {
	cfg      Config
	listener net.Listener
	handover *handover
	handler  http.Handler
	log      *slog.Logger
	began    time.Time
	works    works
	date     atomic.Pointer[dateText]
	// leaving says that answers end their connections, ending that connections are not waited for any more.
	leaving, ending atomic.Bool

	mu    sync.Mutex
	conns map[*conn]struct{}
	// closed says that there are to be no connections any more.
	closed bool
	// accepting is closed when Serve has returned, nil where it was not called.
	accepting chan struct{}
	// swept is closed when the sweeper has ended, nil while there is none; look makes it look at once.
	swept chan struct{}
	look  chan struct{}
}

// New makes a server of the listener's connections. The handler must not keep a request, its header or the writer once it has returned: the
// next request has them.
func New(cfg Config, l net.Listener, h http.Handler, log *slog.Logger) *Server {
	if cfg.Base == nil {
		cfg.Base = context.Background()
	}
	if cfg.MaxHeader = cmp.Or(cfg.MaxHeader, inSize); cfg.MaxHeader > inSize {
		cfg.MaxHeader = inSize
	}
	if cfg.Note == nil {
		cfg.Note = func(net.Conn) func(http.ConnState) { return func(http.ConnState) {} }
	}
	return &Server{
		cfg: cfg, listener: l, handover: newHandover(l.Addr()), handler: h, log: log, began: time.Now(), conns: map[*conn]struct{}{},
		look: make(chan struct{}, 1),
	}
}

// uptime is how long there is the server, in nanoseconds: the half of what time.Now costs.
func (s *Server) uptime() int64 { return int64(time.Since(s.began)) }

// Rest is the listener of the connections that are handed over, for an http.Server.
func (s *Server) Rest() net.Listener { return s.handover }

// Serve serves connections until Shutdown or Close; then it returns http.ErrServerClosed. It is called once.
func (s *Server) Serve() error {
	accepting := make(chan struct{})
	defer close(accepting)
	s.mu.Lock()
	s.accepting = accepting
	s.mu.Unlock()
	const longest = time.Second
	var pause time.Duration
	for {
		nc, err := s.listener.Accept()
		if err != nil {
			if s.ending.Load() {
				return http.ErrServerClosed
			}
			if errors.Is(err, net.ErrClosed) {
				return err
			}
			// Files may be short for a while.
			pause = min(max(2*pause, 5*time.Millisecond), longest)
			s.log.Warn("a connection was not accepted", "err", err)
			time.Sleep(pause)
			continue
		}
		pause = 0
		s.cfg.Awake.Touch()
		c := newConn(s, nc)
		if c == nil {
			if !s.handover.give(nc) {
				_ = nc.Close()
			}
			continue
		}
		if !s.add(c) {
			_ = nc.Close()
			continue
		}
		go c.serve()
	}
}

func (s *Server) add(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.conns[c] = struct{}{}
	if s.swept == nil {
		s.swept = make(chan struct{})
		go s.sweep(s.swept)
	}
	return true
}

func (s *Server) remove(c *conn) {
	s.mu.Lock()
	delete(s.conns, c)
	last := len(s.conns) == 0
	s.mu.Unlock()
	if last && s.ending.Load() {
		s.wake()
	}
}

func (s *Server) wake() {
	select {
	case s.look <- struct{}{}:
	default:
	}
}

// Leave has every answer end its connection from now on. Connections are taken as before: who knows that the server is about to end makes them elsewhere.
func (s *Server) Leave() { s.leaving.Store(true) }

// Shutdown takes no more connections, and returns once nothing that has come is unanswered, or with ctx's error. A connection that has only just been
// made is waited for, one that waits for its client is ended. It may be called again.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	accepting := s.accepting
	s.mu.Unlock()
	if accepting != nil {
		s.takeWaiting(ctx)
	}
	s.end()
	if accepting != nil {
		select {
		case <-accepting:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s.mu.Lock()
	swept := s.swept
	s.mu.Unlock()
	if swept != nil {
		s.wake()
		select {
		case <-swept:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return s.handover.Close()
}

const (
	// handshakeTime is how long the connections that are being made when the listener is about to end may take to be: its end would break them.
	handshakeTime = 100 * time.Millisecond
	// takeTime bounds the wait for those that nobody has taken yet, takeLook is how often it is looked.
	takeTime = 500 * time.Millisecond
	takeLook = time.Millisecond
)

// takeWaiting returns when every connection that was begun has been taken; no other is begun then.
func (s *Server) takeWaiting(ctx context.Context) {
	l, ok := s.listener.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := l.SyscallConn()
	if err != nil {
		return
	}
	// Where it cannot, connections are made until the end.
	_ = socket.Settle(raw)
	ctx, cancel := context.WithTimeout(ctx, takeTime)
	defer cancel()
	for settled := time.After(handshakeTime); ; {
		select {
		case <-settled:
			if settled = time.After(takeLook); !socket.Readable(raw) {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// Close ends every connection at once.
func (s *Server) Close() error {
	s.end()
	_ = s.handover.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for c := range s.conns {
		_ = c.nc.Close()
	}
	return nil
}

func (s *Server) end() {
	s.leaving.Store(true)
	s.ending.Store(true)
	_ = s.listener.Close()
}
