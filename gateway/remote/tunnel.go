package remote

import (
	"context"
	"net"
	"sync"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
)

// tunnel is a connection to an instance. It is the TCP connection to the worker, whose bytes are the instance's; so whoever looks at the
// socket sees what it would see of the instance's own.
type tunnel struct {
	*net.TCPConn
	// ahead is what the instance said together with the worker's answer.
	ahead []byte
	leave func()
}

// Read reads from the instance.
func (t *tunnel) Read(b []byte) (int, error) {
	if len(t.ahead) > 0 {
		n := copy(b, t.ahead)
		t.ahead = t.ahead[n:]
		return n, nil
	}
	return t.TCPConn.Read(b)
}

// Close ends the connection.
func (t *tunnel) Close() error {
	t.leave()
	return t.TCPConn.Close()
}

// dial makes a tunnel within the session.
func (p *peer) dial(ctx context.Context, inst functions.InstanceID) (net.Conn, error) {
	p.mu.Lock()
	s := p.now
	p.mu.Unlock()
	if s == nil {
		return nil, p.broken(nil)
	}
	conn, br, _, err := upgrade(ctx, s.at, bus.PathTunnel+string(inst), bus.UpgradeTunnel, s.id)
	if err != nil {
		return nil, err
	}
	t := &tunnel{TCPConn: conn}
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
