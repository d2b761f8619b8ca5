package http1

import (
	"net"
	"net/http"
	"sync"
	"syscall"
)

// handover is a listener whose connections are those that are handed over.
type handover struct {
	addr net.Addr
	out  chan net.Conn
	end  chan struct{}
	once sync.Once
}

func newHandover(addr net.Addr) *handover {
	return &handover{addr: addr, out: make(chan net.Conn), end: make(chan struct{})}
}

// Accept waits for a connection that is handed over. After Close it returns http.ErrServerClosed, so that the server that accepts from it ends
// as it does at its own Shutdown, whichever comes first.
func (h *handover) Accept() (net.Conn, error) {
	select {
	case c := <-h.out:
		return c, nil
	case <-h.end:
		return nil, http.ErrServerClosed
	}
}

// Close takes no more.
func (h *handover) Close() error {
	h.once.Do(func() { close(h.end) })
	return nil
}

// Addr is the address of the listener that the connections came from.
func (h *handover) Addr() net.Addr { return h.addr }

// give hands a connection over; false when nobody takes it any more.
func (h *handover) give(c net.Conn) bool {
	select {
	case h.out <- c:
		return true
	case <-h.end:
		return false
	}
}

// replayed is a connection of which something was read already: it comes again.
type replayed struct {
	net.Conn
	// mu guards said: net/http reads from one goroutine after another.
	mu   sync.Mutex
	said []byte
}

// Read reads what was read already, then from the connection.
func (r *replayed) Read(p []byte) (int, error) {
	r.mu.Lock()
	if n := copy(p, r.said); n > 0 {
		if r.said = r.said[n:]; len(r.said) == 0 {
			r.said = nil
		}
		r.mu.Unlock()
		return n, nil
	}
	r.mu.Unlock()
	return r.Conn.Read(p)
}

// CloseWrite ends the side that writes, where the connection can.
func (r *replayed) CloseWrite() error {
	if c, ok := r.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return syscall.ENOTSUP
}

// Accepted returns the connection as the listener gave it to Serve: one that was handed over has another form.
func Accepted(c net.Conn) net.Conn {
	if r, ok := c.(*replayed); ok {
		return r.Conn
	}
	return c
}
