package invoke

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/http1"
	"github.com/tatami-faas/tatami/internal/socket"
)

// upstream holds the connections to one instance. Instances share addresses, so nothing here is known by address, and it ends with
// the instance.
type upstream struct {
	workers Workers
	node    functions.NodeID
	id      functions.InstanceID

	mu   sync.Mutex
	idle []*upconn
	// overH2 is nil until a request needs it.
	overH2 *http.Transport
	// saidHTTP1 says that an answer in HTTP/1 came where HTTP/2 was expected.
	saidHTTP1 atomic.Bool
	closed    bool
}

const (
	// maxIdle is how long a connection is kept without use while others are used.
	maxIdle = time.Minute
	// trustFor is how long an idle connection is taken to be open without a look at it, for requests that can be sent again.
	trustFor = 50 * time.Millisecond
)

// get returns the idle connection used last, or nil. Sure asks for one that was open a moment ago.
func (u *upstream) get(now time.Time, sure bool) *upconn {
	for {
		u.mu.Lock()
		n := len(u.idle)
		if n == 0 {
			u.mu.Unlock()
			return nil
		}
		c := u.idle[n-1]
		u.idle[n-1] = nil
		u.idle = u.idle[:n-1]
		u.mu.Unlock()
		if !sure && now.Sub(c.idleSince) < trustFor || c.open() {
			c.reused = true
			return c
		}
		c.close()
	}
}

// put keeps a connection for the next request.
func (u *upstream) put(c *upconn, now time.Time) {
	c.idleSince = now
	u.mu.Lock()
	if u.closed {
		u.mu.Unlock()
		c.close()
		return
	}
	u.idle = append(u.idle, c)
	var old *upconn
	if first := u.idle[0]; now.Sub(first.idleSince) > maxIdle {
		old = first
		u.idle = append(u.idle[:0], u.idle[1:]...)
	}
	u.mu.Unlock()
	if old != nil {
		old.close()
	}
}

// close ends the idle connections; those in use end with their exchange.
func (u *upstream) close() {
	u.mu.Lock()
	idle, h2 := u.idle, u.overH2
	u.idle, u.closed = nil, true
	u.mu.Unlock()
	for _, c := range idle {
		c.close()
	}
	if h2 != nil {
		h2.CloseIdleConnections()
	}
}

// renew ends the idle connections; the next request makes another.
func (u *upstream) renew() {
	u.mu.Lock()
	idle, h2 := u.idle, u.overH2
	u.idle = nil
	u.mu.Unlock()
	for _, c := range idle {
		c.close()
	}
	if h2 != nil {
		h2.CloseIdleConnections()
	}
}

// doneH2 ends the connection of a stream that has ended, where the instance left meanwhile.
func (u *upstream) doneH2() {
	u.mu.Lock()
	h2, closed := u.overH2, u.closed
	u.mu.Unlock()
	if closed && h2 != nil {
		h2.CloseIdleConnections()
	}
}

func (u *upstream) dial(ctx context.Context, deadline time.Time) (*upconn, error) {
	if !deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline)
		defer cancel()
	}
	nc, err := u.workers.Dial(ctx, u.node, u.id)
	if err != nil {
		return nil, err
	}
	return newUpconn(nc), nil
}

// errHeaderTooLarge ends the reading of an answer whose header has no end in sight.
var errHeaderTooLarge = errors.New("the answer's header is too large")

// noBudget lifts the bound on what is read.
const noBudget = -1

// upconn is a connection to an instance. One exchange at a time uses it; only close may be called from elsewhere.
type upconn struct {
	nc net.Conn
	// buffers is nil while no exchange uses the connection.
	*buffers
	// budget is what may still be read of a header, or noBudget.
	budget int
	// heard says that a byte came since the request began.
	heard     bool
	reused    bool
	idleSince time.Time
}

func newUpconn(nc net.Conn) *upconn {
	c := &upconn{nc: nc, budget: noBudget}
	if s := socket.New(nc); s != nil {
		c.nc = s
	}
	return c
}

// buffers are what an exchange needs to use a connection.
type buffers struct {
	br *bufio.Reader
	bw *bufio.Writer
	// in reads the answers of calls, of which nothing is kept.
	in http1.Incoming
}

// bufferPool holds buffers that no exchange uses.
type bufferPool struct{ pool sync.Pool }

// lend gives the connection buffers.
func (p *bufferPool) lend(c *upconn) {
	b, ok := p.pool.Get().(*buffers)
	if !ok {
		b = &buffers{br: bufio.NewReader(nil), bw: bufio.NewWriter(nil)}
	}
	b.br.Reset(c)
	b.bw.Reset(c.nc)
	c.buffers = b
}

// take takes the buffers back from a connection of which nothing is left in them.
func (p *bufferPool) take(c *upconn) {
	b := c.buffers
	c.buffers = nil
	b.br.Reset(nil)
	b.bw.Reset(nil)
	p.pool.Put(b)
}

// Read reads from the connection within the budget.
func (c *upconn) Read(p []byte) (int, error) {
	if c.budget == 0 {
		return 0, errHeaderTooLarge
	}
	if c.budget > 0 && len(p) > c.budget {
		p = p[:c.budget]
	}
	n, err := c.nc.Read(p)
	if n > 0 {
		c.heard = true
		if c.budget > 0 {
			c.budget -= n
		}
	}
	return n, err
}

// open reports whether the other side has neither closed the idle connection nor sent what nobody asked for. Where that cannot be told it
// is taken to be open.
func (c *upconn) open() bool {
	q, ok := c.nc.(interface{ Quiet() bool })
	return !ok || q.Quiet()
}

func (c *upconn) close() { _ = c.nc.Close() }
