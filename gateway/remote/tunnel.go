package remote

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/socket"
)

// tunnel is a connection to an instance. It is a TLS connection to the worker, whose bytes are the instance's.
type tunnel struct {
	*tls.Conn
	// sock is what the TLS connection is over.
	sock *socket.Conn
	// ahead is what the instance said together with the worker's answer.
	ahead []byte
	// life is its session's.
	life  *life
	leave func()
	// lost is why the session ended with which the tunnel did; nil while it lasts.
	lost atomic.Pointer[error]
}

// Read reads from the instance. Where the worker is out of reach its error is that fault.
func (t *tunnel) Read(b []byte) (int, error) {
	if len(t.ahead) > 0 {
		n := copy(b, t.ahead)
		t.ahead = t.ahead[n:]
		return n, nil
	}
	n, err := t.Conn.Read(b)
	if n > 0 {
		t.life.sign()
	}
	if lost := t.lost.Load(); err != nil && lost != nil {
		err = *lost
	}
	return n, err
}

// cut ends the connection with its session.
func (t *tunnel) cut(why error) {
	t.lost.Store(&why)
	_ = t.Conn.Close()
}

// Quiet reports whether the tunnel, of which all was read, is open and nothing more came. A byte that came is lost: the connection is not to
// be used after that.
func (t *tunnel) Quiet() bool { return t.sock.Quiet() && len(t.ahead) == 0 }

// Close ends the connection.
func (t *tunnel) Close() error {
	t.leave()
	return t.Conn.Close()
}

// dial makes a tunnel within the session.
func (p *peer) dial(ctx context.Context, inst functions.InstanceID) (net.Conn, error) {
	p.mu.Lock()
	s := p.now
	p.mu.Unlock()
	if s == nil {
		return nil, p.broken(nil)
	}
	conn, br, _, err := p.upgrade(ctx, s.at, bus.PathTunnel+string(inst), bus.UpgradeTunnel, s.id)
	if err != nil {
		return nil, err
	}
	t := &tunnel{Conn: conn, life: &s.life, sock: conn.NetConn().(*socket.Conn)} // as reach promises
	if n := br.Buffered(); n > 0 {
		b, _ := br.Peek(n)
		t.ahead = append(t.ahead, b...)
	}
	t.leave = sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(s.tunnels, t)
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.now != s {
		_ = conn.Close()
		return nil, p.broken(nil)
	}
	s.tunnels[t] = struct{}{}
	return t, nil
}
