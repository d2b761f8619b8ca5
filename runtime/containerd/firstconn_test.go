//go:build linux

package containerd

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// firstOf is a box that keeps a connection for that long, whose other end it returns.
func firstOf(t *testing.T, wait time.Duration) (b *box, theirs net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: l.Addr().(*net.TCPAddr).Port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	if theirs, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { theirs.Close() })
	b = (&Driver{}).newBox("ins", "", 0)
	if b.netns, err = os.Open("/proc/self/ns/net"); err != nil {
		t.Fatal(err)
	}
	if err := b.keepFirst(fd, wait); err != nil {
		t.Fatal(err)
	}
	return b, theirs
}

// awaitEnd returns when the other side has ended the connection.
func awaitEnd(t *testing.T, c net.Conn) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("%d, %v instead of the end", n, err)
	}
}

func TestFirstConnection(t *testing.T) {
	t.Parallel()
	t.Run("taken once", func(t *testing.T) {
		t.Parallel()
		b, theirs := firstOf(t, time.Hour)
		conn := b.takeFirst()
		if conn == nil {
			t.Fatal("no connection")
		}
		if b.takeFirst() != nil {
			t.Error("a second one")
		}
		if _, err := conn.Write([]byte("x")); err != nil {
			t.Error(err)
		}
		if got := make([]byte, 1); func() bool { _, err := theirs.Read(got); return err != nil || got[0] != 'x' }() {
			t.Errorf("%q", got)
		}
		b.release()
		if _, err := theirs.Write([]byte("y")); err != nil {
			t.Error(err)
		}
		if got := make([]byte, 1); func() bool { _, err := conn.Read(got); return err != nil || got[0] != 'y' }() {
			t.Errorf("the box's release has ended its taker's connection: %q", got)
		}
		conn.Close()
	})
	t.Run("not wanted", func(t *testing.T) {
		t.Parallel()
		b, theirs := firstOf(t, time.Millisecond)
		awaitEnd(t, theirs)
		if b.takeFirst() != nil {
			t.Error("it is still there")
		}
		b.release()
	})
	t.Run("released", func(t *testing.T) {
		t.Parallel()
		b, theirs := firstOf(t, time.Hour)
		b.release()
		awaitEnd(t, theirs)
		if b.takeFirst() != nil {
			t.Error("it is still there")
		}
	})
	t.Run("ended by the function", func(t *testing.T) {
		t.Parallel()
		b, theirs := firstOf(t, time.Hour)
		b.mu.Lock()
		conn := b.first
		b.mu.Unlock()
		theirs.Close()
		// The end is on its way through the loopback device.
		for begun := time.Now(); conn != nil && stillOpen(conn) && time.Since(begun) < time.Minute; {
			time.Sleep(time.Millisecond)
		}
		if b.takeFirst() != nil {
			t.Error("a connection that has ended")
		}
		b.release()
	})
}
