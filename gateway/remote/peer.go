package remote

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/internal/socket"
)

const (
	connectTimeout = 3 * time.Second
	writeTimeout   = 3 * time.Second
	// The wait between two tries to reach a worker grows from the first to the last.
	firstRetry = 10 * time.Millisecond
	lastRetry  = time.Second
	// idleTimeout is how long the connection for questions is kept without any; while one waits, silence of askPing is asked for life, for askSilence.
	idleTimeout = time.Minute
	askPing     = time.Second
	askSilence  = 3 * time.Second
	// forgetAfter is how long a worker that cannot be reached is tried.
	forgetAfter = 10 * time.Minute
)

// peer is a joined worker.
type peer struct {
	w    *Workers
	node functions.NodeID
	// tls is for connections that become sessions and tunnels, http for short questions, which share one.
	tls  *tls.Config
	http *http.Client
	// moved tells that the worker listens elsewhere.
	moved chan struct{}
	// end ends the sessions; nil before they are kept. It is guarded by the workers' mutex.
	end context.CancelFunc

	mu sync.Mutex
	at bus.Listener
	// now is the session; nil while there is none.
	now *session
	// stale counts the slots of sessions that broke: the worker has them back already, and who held them has still to say so.
	stale map[functions.InstanceID]int
}

// session is the connection for slots. Its fields are guarded by its peer's mutex, but for conn, id and life.
type session struct {
	id   string
	conn net.Conn
	at   bus.Listener
	life life

	sequence uint64
	asked    map[uint64]question
	held     map[functions.InstanceID]*holding
	// looks is the timer of the next look at what is kept; looking says that it runs.
	looks   *time.Timer
	looking bool
	// out is what waits to be written; one caller at a time writes, for all.
	out, spare []byte
	writing    bool
	tunnels    map[*tunnel]struct{}
}

// question is an Admit that waits for its answer.
type question struct {
	inst   functions.InstanceID
	answer chan error
}

func newSession(id string, conn net.Conn, at bus.Listener) *session {
	return &session{
		id: id, conn: conn, at: at, life: life{born: time.Now()}, asked: map[uint64]question{}, held: map[functions.InstanceID]*holding{}, tunnels: map[*tunnel]struct{}{},
	}
}

func newPeer(w *Workers, node functions.NodeID, at bus.Listener) *peer {
	p := &peer{w: w, node: node, at: at, tls: w.cfg.TLS(node), moved: make(chan struct{}, 1), stale: map[functions.InstanceID]int{}}
	t := &http.Transport{
		TLSClientConfig: p.tls.Clone(), DisableCompression: true, IdleConnTimeout: idleTimeout, Protocols: new(http.Protocols),
		HTTP2: &http.HTTP2Config{SendPingTimeout: askPing, PingTimeout: askSilence},
	}
	t.Protocols.SetHTTP2(true)
	p.http = &http.Client{Transport: t}
	p.tls.NextProtos = []string{"http/1.1"}
	return p
}

// point takes over where the worker listens.
func (p *peer) point(at bus.Listener) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.at == at {
		return
	}
	p.at = at
	if p.now != nil {
		// The worker has begun anew: it knows nothing of the session.
		_ = p.now.conn.Close()
	}
	select {
	case p.moved <- struct{}{}:
	default:
	}
}

// keep keeps a session until ctx ends.
func (p *peer) keep(ctx context.Context) {
	defer p.http.CloseIdleConnections()
	var since time.Time
	lost := false
	for wait := firstRetry; ctx.Err() == nil; {
		s, br, err := p.connect(ctx)
		if err == nil {
			p.w.log.Debug("a worker is reached", "node", p.node, "addr", s.at.Address)
			if lost {
				p.tell(p.w.back)
			}
			lost, since = false, time.Time{}
			begun := time.Now()
			err = p.serve(ctx, s, br)
			if time.Since(begun) > lastRetry {
				wait = firstRetry
			}
		}
		if ctx.Err() != nil {
			return
		}
		if since.IsZero() {
			since = time.Now()
			p.w.log.Warn("a worker is out of reach; trying again", "node", p.node, "err", err)
		}
		switch out := time.Since(since); {
		case out >= forgetAfter:
			p.w.forget(p)
			return
		case !lost && out >= p.w.cfg.LostAfter:
			lost = true
			p.tell(p.w.lost)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
			wait = min(2*wait, lastRetry)
		case <-p.moved:
			wait = firstRetry
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

func (p *peer) tell(whom func(functions.NodeID)) {
	if whom != nil {
		whom(p.node)
	}
}

// listener is where the worker listens.
func (p *peer) listener() bus.Listener {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.at
}

// connect opens a session and makes it the peer's.
func (p *peer) connect(ctx context.Context) (*session, *bufio.Reader, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	at := p.listener()
	conn, br, id, err := p.upgrade(ctx, at, bus.PathSession, bus.UpgradeSession, "")
	if err != nil {
		return nil, nil, err
	}
	s := newSession(id, conn, at)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.at != at {
		_ = conn.Close()
		return nil, nil, errors.New("the worker listens elsewhere now")
	}
	p.now = s
	return s, br, nil
}

// serve reads the answers until the session breaks or ctx ends, and undoes it then.
func (p *peer) serve(ctx context.Context, s *session, br *bufio.Reader) error {
	defer context.AfterFunc(ctx, func() { _ = s.conn.Close() })()
	var pings sync.WaitGroup
	ended := make(chan struct{})
	pings.Go(func() { p.ping(s, ended) })
	err := p.read(s, br)
	close(ended)
	_ = s.conn.Close()
	pings.Wait()

	p.mu.Lock()
	defer p.mu.Unlock()
	p.now = nil
	s.rest()
	for inst, h := range s.held {
		if h.lent > 0 {
			p.stale[inst] += h.lent
		}
	}
	for _, q := range s.asked {
		q.answer <- p.broken(err)
	}
	for t := range s.tunnels {
		t.cut(p.broken(err))
	}
	return err
}

func (p *peer) broken(err error) error {
	return fault.Wrap(fault.CodeUnavailable, err, "the worker of node %s is out of reach", p.node)
}

// ping gives signs of life, and asks for them.
func (p *peer) ping(s *session, ended <-chan struct{}) {
	tick := time.NewTicker(bus.SessionPing)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			p.mu.Lock()
			s.say(bus.SlotLine{Op: bus.SlotPing})
			p.flush(s)
			p.mu.Unlock()
		case <-ended:
			return
		}
	}
}

// upgrade connects to the worker and asks for another protocol, within a session or for one, whose name it returns.
func (p *peer) upgrade(ctx context.Context, at bus.Listener, path, protocol, session string) (*tls.Conn, *bufio.Reader, string, error) {
	conn, err := p.reach(ctx, at.Address)
	if err != nil {
		return nil, nil, "", err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	br := bufio.NewReader(conn)
	head := fmt.Sprintf("GET %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nConnection: Upgrade\r\nUpgrade: %s\r\n%s: %s\r\n\r\n",
		path, at.Address, at.Token, protocol, bus.HeaderSession, session)
	name, err := switched(conn, br, head)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		return nil, nil, "", err
	}
	return conn, br, name, nil
}

// reach connects to the worker. The connection is over a *socket.Conn.
func (p *peer) reach(ctx context.Context, address string) (*tls.Conn, error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	sock := socket.New(nc)
	if sock == nil {
		_ = nc.Close()
		return nil, fmt.Errorf("%s is reached by no socket", address)
	}
	conn := tls.Client(sock, p.tls)
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = nc.Close()
		return nil, err
	}
	return conn, nil
}

// switched sends the head of a request and reads up to the end of the answer's, which must be that the protocol is another one now.
func switched(conn net.Conn, br *bufio.Reader, head string) (session string, err error) {
	if _, err := io.WriteString(conn, head); err != nil {
		return "", err
	}
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return "", bus.FaultOf(resp)
	}
	return resp.Header.Get(bus.HeaderSession), nil
}
