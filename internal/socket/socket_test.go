package socket_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/internal/socket"
)

// pair returns the two ends of a connection; ours is a Conn.
func pair(t *testing.T) (ours *socket.Conn, theirs *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	other, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close(); _ = other.Close() })
	if ours = socket.New(nc); ours == nil {
		t.Fatal("it has no socket")
	}
	return ours, other.(*net.TCPConn)
}

// More than both buffers hold passes whole, both ways at once.
func TestMuchPasses(t *testing.T) {
	t.Parallel()
	ours, theirs := pair(t)
	much := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	sent := make(chan error, 2)
	for _, c := range []net.Conn{ours, theirs} {
		go func() {
			n, err := c.Write(much)
			if err == nil && n != len(much) {
				err = io.ErrShortWrite
			}
			sent <- err
			_ = c.(interface{ CloseWrite() error }).CloseWrite()
		}()
	}
	got := make(chan []byte, 2)
	for _, c := range []net.Conn{ours, theirs} {
		go func() {
			b, _ := io.ReadAll(c)
			got <- b
		}()
	}
	for range 2 {
		if err := <-sent; err != nil {
			t.Error(err)
		}
		if b := <-got; !bytes.Equal(b, much) {
			t.Errorf("%d bytes came", len(b))
		}
	}
}

// What goes wrong is told as by net.
func TestErrors(t *testing.T) {
	t.Parallel()
	ours, theirs := pair(t)
	buf := make([]byte, 16)
	if n, err := ours.Read(nil); n != 0 || err != nil {
		t.Errorf("nothing wanted: %d %v", n, err)
	}
	_ = ours.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := ours.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the deadline: %v", err)
	}
	_ = ours.SetReadDeadline(time.Time{})
	_ = theirs.SetLinger(0)
	_ = theirs.Close()
	var op *net.OpError
	if _, err := ours.Read(buf); !errors.Is(err, syscall.ECONNRESET) || !errors.As(err, &op) || op.Op != "read" {
		t.Errorf("after a reset: %v", err)
	}
	if _, err := ours.Write(buf); !errors.Is(err, syscall.EPIPE) || !errors.As(err, &op) || op.Op != "write" {
		t.Errorf("writing after a reset: %v", err)
	}

	ours, theirs = pair(t)
	_ = theirs.CloseWrite()
	if n, err := ours.Read(buf); n != 0 || err != io.EOF { //nolint:errorlint // readers compare with ==
		t.Errorf("at the end: %d %v", n, err)
	}
	waits := make(chan error, 1)
	go func() {
		_, err := theirs.Read(buf)
		_ = ours.Close()
		waits <- err
	}()
	if _, err := ours.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	if err := <-waits; err != nil {
		t.Error(err)
	}
	if _, err := ours.Read(buf); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if _, err := ours.Write(buf); !errors.Is(err, net.ErrClosed) {
		t.Errorf("writing when closed: %v", err)
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if socket.New(a) != nil {
		t.Error("a pipe is taken for a socket")
	}
}

// A connection is quiet until something comes or its other side ends it.
func TestQuiet(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(theirs *net.TCPConn) error{
		"a byte": func(theirs *net.TCPConn) error {
			_, err := theirs.Write([]byte("x"))
			return err
		},
		"the end": (*net.TCPConn).CloseWrite,
	} {
		ours, theirs := pair(t)
		if !ours.Quiet() {
			t.Errorf("%s: something came before it was sent", name)
		}
		if err := end(theirs); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(20 * time.Second); !socket.Readable(ours.Raw()); {
			if time.Now().After(deadline) {
				t.Fatalf("%s: it did not come", name)
			}
		}
		if ours.Quiet() {
			t.Errorf("%s: it is not seen", name)
		}
		_ = ours.Close()
		if ours.Quiet() {
			t.Errorf("%s: a closed connection is said to be open", name)
		}
	}
}
