package worker

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/awake"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/internal/socket"
)

const (
	// headPatience is how long the head of a request may take.
	headPatience = 10 * time.Second
	// dialPatience is how long connecting to an instance may take.
	dialPatience = 30 * time.Second
	// writePatience is how long a gateway may take to read.
	writePatience = 10 * time.Second
)

// listener is where gateways elsewhere reach the instances, over TLS on which both sides show certificates. Short questions come over HTTP/2.
// A gateway opens a session, over which it takes and gives back slots, those included that it keeps between its calls, and for each connection to an
// instance a tunnel within that session, whose bytes are not looked at. What a session holds ends with it, so that a gateway that dies gives everything
// back, once.
type listener struct {
	w     *Worker
	log   *slog.Logger
	l     net.Listener
	token string

	mu       sync.Mutex
	closed   bool
	sessions map[string]*session
	// busy counts the handlers, those of upgraded connections included.
	busy sync.WaitGroup
}

// newListener opens the listener; run serves.
func newListener(ctx context.Context, w *Worker, addr string) (*listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fault.Wrap(fault.CodeConflict, err, "gateways cannot reach this worker at %s", addr).WithField("listen").
			WithHint("end the program that has the port (sudo ss -ltnp), or give another --listen")
	}
	return &listener{w: w, log: w.log, l: l, token: rand.Text(), sessions: map[string]*session{}}, nil
}

// announcement is what gateways are told; nil for no listener.
func (l *listener) announcement() *bus.Listener {
	if l == nil {
		return nil
	}
	return &bus.Listener{Address: l.l.Addr().String(), Token: l.token}
}

// run serves until ctx ends, then ends every session, and returns when the last handler has.
func (l *listener) run(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+bus.PathSession, l.session)
	mux.HandleFunc("GET "+bus.PathTunnel+"{inst}", l.tunnel)
	mux.HandleFunc("POST "+bus.PathLogs, l.logs)
	mux.HandleFunc("POST "+bus.PathExec, l.exec)
	mux.HandleFunc("POST "+bus.PathEnd, l.end)
	srv := &http.Server{
		Handler: l.guard(mux), ReadHeaderTimeout: headPatience, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(l.log.Handler(), slog.LevelDebug), Protocols: new(http.Protocols),
		TLSConfig: l.w.cfg.TLS(func(err error) { l.refused("", err) }),
	}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetHTTP2(true)
	defer l.busy.Wait()
	defer context.AfterFunc(ctx, func() {
		_ = srv.Close()
		l.endAll()
	})()
	if err := srv.ServeTLS(sockets{l.l}, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving gateways: %w", err)
	}
	return nil
}

// sockets has the TLS of its connections read and write without the scheduler's help.
type sockets struct{ net.Listener }

// Accept takes a connection.
func (s sockets) Accept() (net.Conn, error) {
	nc, err := s.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return direct(nc), nil
}

// direct is nc as a socket, where it is one.
func direct(nc net.Conn) net.Conn {
	if c := socket.New(nc); c != nil {
		return c
	}
	return nc
}

var errNoToken = errors.New("the request has not this run's token")

// refused tells of who is no gateway.
func (l *listener) refused(remote string, err error) {
	if tell := l.w.cfg.Refused; tell != nil {
		tell(remote, err)
		return
	}
	l.log.Warn("who is no gateway was refused", "remote", remote, "err", err)
}

// guard lets in who knows the token, and counts the handlers.
func (l *listener) guard(next http.Handler) http.Handler {
	want := []byte("Bearer " + l.token)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), want) != 1 {
			l.refused(r.RemoteAddr, errNoToken)
			bus.RespondFault(w, fault.New(fault.CodeUnauthenticated, "this worker does not know the token"))
			return
		}
		l.mu.Lock()
		if l.closed {
			l.mu.Unlock()
			bus.RespondFault(w, fault.New(fault.CodeDraining, "the worker is stopping"))
			return
		}
		l.busy.Add(1)
		l.mu.Unlock()
		defer l.busy.Done()
		next.ServeHTTP(w, r)
	})
}

func (l *listener) endAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for _, s := range l.sessions {
		s.end()
	}
}

// upgrade takes the connection over from the server.
func upgrade(w http.ResponseWriter, r *http.Request, protocol string, header ...string) (net.Conn, *bufio.Reader, error) {
	conn, br, err := takeOver(w, r, protocol)
	if err == nil {
		err = switchTo(conn, protocol, header...)
	}
	return conn, br, err
}

// takeOver takes the connection from the server, and answers nothing.
func takeOver(w http.ResponseWriter, r *http.Request, protocol string) (net.Conn, *bufio.Reader, error) {
	if !strings.EqualFold(r.Header.Get("Upgrade"), protocol) {
		return nil, nil, fault.New(fault.CodeInvalidRequest, "an upgrade to %s is wanted here", protocol).WithField("Upgrade")
	}
	conn, brw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, nil, fault.Wrap(fault.CodeInvalidRequest, err, "an upgrade needs HTTP/1.1")
	}
	_ = conn.SetDeadline(time.Time{})
	return conn, brw.Reader, nil
}

// switchTo tells the other side that the connection speaks the protocol from now on. It closes one that does not take that.
func switchTo(conn net.Conn, protocol string, header ...string) error {
	_ = conn.SetWriteDeadline(time.Now().Add(writePatience))
	if _, err := fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n%s\r\n", protocol, strings.Join(header, "")); err != nil {
		conn.Close()
		return err
	}
	_ = conn.SetWriteDeadline(time.Time{})
	return nil
}

// refuse answers with the error, where the connection is still the server's.
func (l *listener) refuse(w http.ResponseWriter, err error) {
	if fault.From(err) != nil {
		bus.RespondFault(w, err)
		return
	}
	l.log.Debug("a gateway's connection", "err", err)
}

func (l *listener) find(id string) *session {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sessions[id]
}

// tunnel joins the gateway's connection to one of the instance's.
func (l *listener) tunnel(w http.ResponseWriter, r *http.Request) {
	s := l.find(r.Header.Get(bus.HeaderSession))
	if s == nil {
		bus.RespondFault(w, fault.New(fault.CodeUnavailable, "there is no such session"))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), dialPatience)
	defer cancel()
	inst, err := l.w.Dial(ctx, l.w.cfg.Node, functions.InstanceID(r.PathValue("inst")))
	if err != nil {
		if fault.From(err) == nil {
			err = fault.Wrap(fault.CodeUnavailable, err, "the instance takes no connections")
		}
		bus.RespondFault(w, err)
		return
	}
	defer inst.Close()
	inst = direct(inst)
	conn, br, err := upgrade(w, r, bus.UpgradeTunnel)
	if err != nil {
		l.refuse(w, err)
		return
	}
	defer conn.Close()
	defer s.leave(conn, inst)
	if s.join(conn, inst) {
		l.splice(conn, br, inst)
	}
}

// splice passes bytes on both ways until both sides have ended theirs, or one breaks.
func (l *listener) splice(gateway net.Conn, ahead *bufio.Reader, inst net.Conn) {
	var back sync.WaitGroup
	back.Go(func() { l.pass(gateway, inst) })
	// What came together with the request's head.
	if n := ahead.Buffered(); n > 0 {
		if _, err := io.CopyN(inst, ahead, int64(n)); err != nil {
			_ = gateway.Close()
		}
	}
	l.pass(inst, gateway)
	back.Wait()
}

// pass copies until src ends, and says so to dst; where that cannot be, both are closed.
func (l *listener) pass(dst, src net.Conn) {
	_, err := io.Copy(dst, &heard{src, l.w.cfg.Awake})
	if half, ok := dst.(interface{ CloseWrite() error }); err != nil || !ok || half.CloseWrite() != nil {
		_ = dst.Close()
		_ = src.Close()
	}
}

// heard tells when something was read.
type heard struct {
	from  io.Reader
	awake *awake.Keeper
}

// Read reads.
func (h *heard) Read(p []byte) (int, error) {
	n, err := h.from.Read(p)
	h.awake.Touch()
	return n, err
}

func (l *listener) logs(w http.ResponseWriter, r *http.Request) {
	var q bus.LogQuery
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&q); err != nil {
		bus.RespondFault(w, fault.Wrap(fault.CodeInvalidRequest, err, "the query cannot be read"))
		return
	}
	ctl, enc := http.NewResponseController(w), json.NewEncoder(w)
	live := false
	tell := func(e bus.LogEvent, flush bool) error {
		_ = ctl.SetWriteDeadline(time.Now().Add(writePatience))
		if err := enc.Encode(e); err != nil || !flush {
			return err
		}
		return ctl.Flush()
	}
	q.Live = func() {
		live = true
		_ = tell(bus.LogEvent{Live: true}, true)
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	err := l.w.Logs(r.Context(), q, func(line bus.LogLine) error { return tell(bus.LogEvent{Line: &line}, live) })
	if err != nil && r.Context().Err() == nil {
		_ = tell(bus.LogEvent{Err: err.Error()}, true)
	}
}

func (l *listener) exec(w http.ResponseWriter, r *http.Request) {
	var q bus.ExecRequest
	// In JSON the bytes take a third more.
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 2*bus.MaxExecInput)).Decode(&q); err != nil {
		bus.RespondFault(w, fault.Wrap(fault.CodeInvalidRequest, err, "the request cannot be read"))
		return
	}
	stdout, stderr := bounded{left: bus.MaxExecOutput}, bounded{left: bus.MaxExecOutput}
	code, err := l.w.Exec(r.Context(), q.Instance, q.Args, strings.NewReader(string(q.Stdin)), &stdout, &stderr)
	if err != nil {
		bus.RespondFault(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	out := bus.ExecResult{Schema: bus.Schema, Code: code, Stdout: stdout.b, Stderr: stderr.b}
	if err := json.NewEncoder(w).Encode(out); err != nil {
		l.log.Debug("a gateway's connection", "err", err)
	}
}

// maxQuestion is the longest question without a body of its own, in bytes.
const maxQuestion = 16 << 10

func (l *listener) end(w http.ResponseWriter, r *http.Request) {
	var q bus.EndRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxQuestion)).Decode(&q); err != nil {
		bus.RespondFault(w, fault.Wrap(fault.CodeInvalidRequest, err, "the request cannot be read"))
		return
	}
	if err := l.w.End(l.w.cfg.Node, q.Instance, q.Reason); err != nil {
		bus.RespondFault(w, err)
	}
}

// bounded keeps the first bytes and drops the rest.
type bounded struct {
	b    []byte
	left int
}

// Write takes everything.
func (b *bounded) Write(p []byte) (int, error) {
	n := min(len(p), b.left)
	b.left -= n
	b.b = append(b.b, p[:n]...)
	return len(p), nil
}
