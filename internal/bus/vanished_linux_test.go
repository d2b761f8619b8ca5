package bus_test

import (
	"errors"
	"net"
	"net/url"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tatami-faas/tatami/internal/bus"
)

// A machine that vanished acknowledges nothing: a link's connection to it ends in seconds, where TCP by itself would try for a quarter of an hour.
func TestAVanishedServerIsMissed(t *testing.T) {
	t.Parallel()
	b, token, _ := server(t, bus.Config{})
	l := join(t, bus.JoinConfig{URL: b.ListenURL(), Token: token})
	u, err := url.Parse(b.ListenURL())
	if err != nil {
		t.Fatal(err)
	}
	c, err := bus.Dial(l, u.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	deafen(t, c)
	if _, err := c.Write([]byte("is anybody there?")); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ETIMEDOUT) {
		t.Errorf("reading ended with %v", err)
	}
}

// deafen has nothing more arrive at a socket, acknowledgements neither.
func deafen(t *testing.T, c net.Conn) {
	t.Helper()
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var serr error
	nothing := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0}
	err = raw.Control(func(fd uintptr) {
		serr = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &nothing})
	})
	if err := errors.Join(err, serr); err != nil {
		t.Fatal(err)
	}
}
