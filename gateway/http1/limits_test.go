package http1_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/gateway/http1"
)

// dial connects and says text.
func dial(t *testing.T, addr, text string) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	return c, bufio.NewReader(c)
}

// answer reads one answer.
func answer(t *testing.T, br *bufio.Reader) (*http.Response, string) {
	t.Helper()
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

// ended waits for the server's end of the connection.
func ended(t *testing.T, br *bufio.Reader) {
	t.Helper()
	if b, err := io.ReadAll(br); errors.Is(err, os.ErrDeadlineExceeded) || len(b) > 0 {
		t.Fatalf("the connection goes on: %q, %v", b, err)
	}
}

func await(t *testing.T, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(20 * time.Second):
		t.Fatal("it did not happen")
	}
}

var hello = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })

// Who does not say what it wants, or wants nothing more, loses the connection.
func TestTimeLimits(t *testing.T) {
	t.Parallel()
	const short, long = 50 * time.Millisecond, time.Hour
	for name, c := range map[string]struct {
		cfg http1.Config
		// next follows once the answer to text was read: a connection that ends with something unread takes its answer with it.
		text, next string
	}{
		"silent":      {http1.Config{HeaderTimeout: short, IdleTimeout: long}, "", ""},
		"half a head": {http1.Config{HeaderTimeout: short, IdleTimeout: long}, "GET /fn/x HT", ""},
		"idle":        {http1.Config{HeaderTimeout: long, IdleTimeout: short}, "GET /fn/x" + tail, ""},
		"half a next": {http1.Config{HeaderTimeout: short, IdleTimeout: long}, "GET /fn/x" + tail, "GET /f"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, addr := start(t, c.cfg, hello)
			conn, br := dial(t, addr, c.text)
			if strings.Contains(c.text, tail) {
				answer(t, br)
			}
			if _, err := io.WriteString(conn, c.next); err != nil {
				t.Fatal(err)
			}
			ended(t, br)
		})
	}
}

// A client that asks and asks and reads nothing is left when the time for an answer is over.
func TestAnswersThatNobodyReads(t *testing.T) {
	t.Parallel()
	_, addr := start(t, http1.Config{WriteTimeout: 100 * time.Millisecond}, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, strings.Repeat("a", 1000))
	}))
	c, _ := dial(t, addr, "")
	for {
		if _, err := io.WriteString(c, "GET /fn/x"+tail); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("the connection goes on")
		} else if err != nil {
			return
		}
	}
}

// A client that leaves ends its request's context, also by its half of the connection and behind a body; one that stays does not.
func TestClientsThatLeave(t *testing.T) {
	t.Parallel()
	began, left := make(chan struct{}), make(chan struct{})
	_, addr := start(t, http1.Config{}, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		began <- struct{}{}
		<-r.Context().Done()
		if errors.Is(context.Cause(r.Context()), context.Canceled) {
			left <- struct{}{}
		}
	}))
	for _, text := range []string{"GET /fn/x" + tail, "POST /fn/x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"} {
		for _, leave := range []func(net.Conn){
			func(c net.Conn) { _ = c.Close() },
			func(c net.Conn) { _ = c.(*net.TCPConn).CloseWrite() },
			func(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0); _ = c.Close() },
		} {
			c, _ := dial(t, addr, text)
			await(t, began)
			leave(c)
			await(t, left)
		}
	}
}

// The end of what contexts are made from reaches requests with its cause.
func TestTheBaseEnds(t *testing.T) {
	t.Parallel()
	base, end := context.WithCancelCause(t.Context())
	began, why := make(chan struct{}), make(chan error, 1)
	_, addr := start(t, http1.Config{Base: base}, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(began)
		<-r.Context().Done()
		why <- context.Cause(r.Context())
	}))
	dial(t, addr, "GET /fn/x"+tail)
	await(t, began)
	down := errors.New("the machine goes down")
	end(down)
	if got := <-why; !errors.Is(got, down) {
		t.Errorf("the cause is %v", got)
	}
}

// The end of the server waits for answers under way and for nothing else.
func TestShutdown(t *testing.T) {
	t.Parallel()
	began, goOn := make(chan struct{}), make(chan struct{})
	s, addr := start(t, http1.Config{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/fn/wait" {
			close(began)
			<-goOn
		}
		hello(w, r)
	}))
	_, silent := dial(t, addr, "")
	_, half := dial(t, addr, "GET /fn/x HT")
	_, idle := dial(t, addr, "GET /fn/x"+tail)
	answer(t, idle)
	_, busy := dial(t, addr, "GET /fn/wait"+tail+"GET /fn/never"+tail)
	await(t, began)

	hurried, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Shutdown(hurried); !errors.Is(err, context.Canceled) {
		t.Errorf("with a request under way: %v", err)
	}
	for _, br := range []*bufio.Reader{silent, half, idle} {
		ended(t, br)
	}
	close(goOn)
	if resp, body := answer(t, busy); !resp.Close || body != "hello" {
		t.Errorf("close %t %q", resp.Close, body)
	}
	ended(t, busy)
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := s.Rest().Accept(); !errors.Is(err, http.ErrServerClosed) {
		t.Errorf("what is handed over after the end: %v", err)
	}
}

// Nothing that came before the end is lost: not what lies in a connection that was idle, nor in one that nobody has taken yet.
func TestShutdownAnswersWhatCame(t *testing.T) {
	t.Parallel()
	for range 20 {
		s, addr := start(t, http1.Config{}, hello)
		var all []*bufio.Reader
		for range 8 {
			c, br := dial(t, addr, "GET /fn/x"+tail)
			answer(t, br)
			if _, err := io.WriteString(c, "GET /fn/y"+tail); err != nil {
				t.Fatal(err)
			}
			all = append(all, br)
			_, br = dial(t, addr, "GET /fn/z"+tail)
			all = append(all, br)
		}
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		for _, br := range all {
			if _, body := answer(t, br); body != "hello" {
				t.Errorf("%q", body)
			}
			ended(t, br)
		}
	}
}

// Deadlines that a handler sets hold for its own answer, and a handler's panic ends its own connection.
func TestWhatAHandlerDoesIsItsOwn(t *testing.T) {
	t.Parallel()
	_, addr := start(t, http1.Config{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/fn/deadlines":
			rc := http.NewResponseController(w)
			if err := errors.Join(rc.SetReadDeadline(time.Unix(1, 0)), rc.SetWriteDeadline(time.Now().Add(time.Hour)), rc.Flush()); err != nil {
				panic(err)
			}
			if _, err := r.Body.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				panic(err)
			}
		case "/fn/panic":
			panic("on purpose")
		}
		hello(w, r)
	}))
	_, br := dial(t, addr, "GET /fn/deadlines"+tail)
	answer(t, br)
	c, br := dial(t, addr, "GET /fn/deadlines"+tail)
	answer(t, br)
	if _, err := io.WriteString(c, "GET /fn/deadlines"+tail); err != nil {
		t.Fatal(err)
	}
	answer(t, br)
	_, br = dial(t, addr, "GET /fn/panic"+tail)
	ended(t, br)
}

// pipes is a listener whose connections are no sockets.
type pipes struct {
	conns chan net.Conn
	end   chan struct{}
	once  sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.end:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error {
	p.once.Do(func() { close(p.end) })
	return nil
}
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{} }

// What is no socket is for net/http from the beginning; what a client said before a connection was handed over comes again, once.
func TestHandingOver(t *testing.T) {
	t.Parallel()
	p := &pipes{conns: make(chan net.Conn), end: make(chan struct{})}
	s := http1.New(http1.Config{}, p, hello, nil)
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	ours, theirs := net.Pipe()
	defer ours.Close()
	defer theirs.Close()
	p.conns <- ours
	c, err := s.Rest().Accept()
	if err != nil || c != ours || http1.Accepted(c) != ours {
		t.Errorf("%v %v", c, err)
	}
	_ = s.Close()
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var states sync.Map
	s = http1.New(http1.Config{Note: func(c net.Conn) func(http.ConnState) {
		return func(state http.ConnState) { states.Store(c, state) }
	}}, l, hello, nil)
	go func() { served <- s.Serve() }()
	const said = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	client, _ := dial(t, l.Addr().String(), said)
	if c, err = s.Rest().Accept(); err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(client, "more")
	_ = client.(*net.TCPConn).CloseWrite()
	if b, err := io.ReadAll(c); err != nil || string(b) != said+"more" {
		t.Errorf("%q %v", b, err)
	}
	if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Error(err)
	}
	if state, noted := states.Load(http1.Accepted(c)); noted {
		t.Errorf("a connection that was handed over is said to be %v", state)
	}
	_ = c.Close()
	_ = s.Close()
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	<-served
}
