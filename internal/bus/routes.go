package bus

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/tatami-faas/tatami/internal/pki"
)

// routes are the connections that other servers of the cluster made to this one. Each connection between two servers was made to one of them: together they
// know all. It is safe for concurrent use.
type routes struct {
	keeper *pki.Keeper

	mu  sync.Mutex
	all []route
}

// route is a connection of another server.
type route struct {
	conn net.Conn
	// peer is the server's name, chain what it showed at a time.
	peer  string
	chain []*x509.Certificate
	at    time.Time
}

// follow has the connections known that are made with a configuration.
func (r *routes) follow(c *tls.Config) {
	c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		one := c.Clone()
		one.GetConfigForClient = nil
		one.VerifyConnection = func(s tls.ConnectionState) error {
			err := c.VerifyConnection(s)
			if err == nil {
				r.add(hello.Conn, s.PeerCertificates, time.Now())
			}
			return err
		}
		return one, nil
	}
}

func (r *routes) add(conn net.Conn, chain []*x509.Certificate, now time.Time) {
	i, err := r.keeper.Identity()
	if err != nil {
		return
	}
	peer, err := i.Trust().Check(chain, now)
	if err != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(slices.DeleteFunc(r.all, func(o route) bool { return closed(o.conn) }), route{conn, peer.Name, chain, now})
}

// end ends the connections of one server that began with a certificate that is not believed now. It names the server, which makes others within about a
// second, and says how many connections there were and how many such are left. Ready says of a server that it can make others.
func (r *routes) end(t *pki.Trust, ready func(peer string) bool) (peer string, ended, left int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = slices.DeleteFunc(r.all, func(o route) bool {
		if closed(o.conn) {
			return true
		}
		if _, err := t.Check(o.chain, o.at); err == nil {
			return false
		}
		if peer != "" && o.peer != peer || !ready(o.peer) {
			left++
			return false
		}
		peer = o.peer
		ended++
		_ = o.conn.Close()
		return true
	})
	return peer, ended, left
}

// closed reports whether this process has closed a connection.
func closed(c net.Conn) bool {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return false
	}
	raw, err := tcp.SyscallConn()
	return err != nil || raw.Control(func(uintptr) {}) != nil
}
