package gateway

import (
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// mostConnections bounds the public connections where the process may open files without end.
	mostConnections = 1 << 16
	// filesPerCall is what a call may hold: its client's connection, the one to the instance, and room for the rest of the process.
	filesPerCall = 3
	// courtesy is how long a connection that has said nothing yet is safe from giving way.
	courtesy = time.Second
	// refusalTime bounds the writing of a refusal.
	refusalTime = time.Second
)

// crowded is said to a connection for which there is no room.
const crowded = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nRetry-After: 1\r\nTatami-Error: unavailable\r\n" +
	"Content-Length: 50\r\nConnection: close\r\n\r\nthe gateway has as many connections as it may have"

// guests is a listener that holds at most so many connections. Where there are as many, the one that has been idle longest gives way to
// the next; where none is idle, the next is refused.
type guests struct {
	net.Listener
	most int
	// away counts connections that changed their protocol: the server has forgotten them.
	away func() int

	all   sync.Map // net.Conn -> *guest
	count atomic.Int64
}

// guest is a connection as the listener knows it.
type guest struct {
	// idleSince is when it had no request under way, in nanoseconds; 0 while it has one.
	idleSince atomic.Int64
	// silent says that it has not sent a request yet.
	silent atomic.Bool
}

// Accept waits for a connection for which there is room.
func (g *guests) Accept() (net.Conn, error) {
	for {
		c, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if int(g.count.Load())+g.away() >= g.most && !g.makeRoom(time.Now()) {
			refuse(c)
			continue
		}
		in := &guest{}
		in.silent.Store(true)
		in.idleSince.Store(time.Now().UnixNano())
		g.all.Store(c, in)
		g.count.Add(1)
		return c, nil
	}
}

// SyscallConn gives access to the socket that listens.
func (g *guests) SyscallConn() (syscall.RawConn, error) {
	if l, ok := g.Listener.(syscall.Conn); ok {
		return l.SyscallConn()
	}
	return nil, syscall.ENOTSUP
}

// note is the server's word on what a connection does.
func (g *guests) note(c net.Conn, state http.ConnState) {
	switch state {
	case http.StateActive, http.StateIdle:
		if v, ok := g.all.Load(c); ok {
			v.(*guest).note(state)
		}
	case http.StateClosed, http.StateHijacked:
		g.forget(c)
	}
}

// noted is note for one connection, which is looked up once.
func (g *guests) noted(c net.Conn) func(http.ConnState) {
	v, _ := g.all.Load(c)
	in, _ := v.(*guest)
	return func(state http.ConnState) {
		if in != nil && (state == http.StateActive || state == http.StateIdle) {
			in.note(state)
			return
		}
		g.note(c, state)
	}
}

// note notes that the guest has begun a request, or has none under way.
func (in *guest) note(state http.ConnState) {
	if state == http.StateActive {
		in.silent.Store(false)
		in.idleSince.Store(0)
		return
	}
	in.idleSince.Store(time.Now().UnixNano())
}

func (g *guests) forget(c net.Conn) bool {
	_, was := g.all.LoadAndDelete(c)
	if was {
		g.count.Add(-1)
	}
	return was
}

// makeRoom ends the connection that has been idle longest and reports whether there was one.
func (g *guests) makeRoom(now time.Time) bool {
	var oldest net.Conn
	var since int64
	g.all.Range(func(k, v any) bool {
		in := v.(*guest)
		at := in.idleSince.Load()
		if at == 0 || in.silent.Load() && now.Sub(time.Unix(0, at)) < courtesy {
			return true
		}
		if oldest == nil || at < since {
			oldest, since = k.(net.Conn), at
		}
		return true
	})
	if oldest == nil || !g.forget(oldest) {
		return false
	}
	_ = oldest.Close()
	return true
}

// refuse says why there is no answer. It does not wait: the buffer of a new connection takes that much.
func refuse(c net.Conn) {
	_ = c.SetWriteDeadline(time.Now().Add(refusalTime))
	_, _ = io.WriteString(c, crowded)
	_ = c.Close()
}

// connectionsFor is how many public connections there may be by the files that the process may open.
func connectionsFor() int {
	var files syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files) != nil {
		return mostConnections
	}
	return max(1, int(min(files.Cur/filesPerCall, mostConnections)))
}
