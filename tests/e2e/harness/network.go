//go:build e2e

package harness

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// Network is a network namespace of the test's own. It ends with the test, when nothing runs in it any more.
type Network struct {
	t  testing.TB
	ns *os.File
}

// NewNetwork makes an empty one.
func NewNetwork(t testing.TB) *Network {
	t.Helper()
	n := &Network{t: t}
	err := onLostThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return os.NewSyscallError("unshare", err)
		}
		var err error
		n.ns, err = os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.ns.Close() })
	return n
}

// FD is the namespace's descriptor.
func (n *Network) FD() int { return int(n.ns.Fd()) }

// Do runs f on a thread inside: sockets that it makes and processes that it starts belong to the namespace.
func (n *Network) Do(f func() error) error {
	return onLostThread(func() error {
		if err := unix.Setns(n.FD(), unix.CLONE_NEWNET); err != nil {
			return os.NewSyscallError("setns", err)
		}
		return f()
	})
}

// Must is Do that fails the test.
func (n *Network) Must(f func() error) {
	n.t.Helper()
	if err := n.Do(f); err != nil {
		n.t.Fatal(err)
	}
}

// Dial connects from inside to an address that is a number.
func (n *Network) Dial(ctx context.Context, network, addr string) (conn net.Conn, err error) {
	err = n.Do(func() error {
		var d net.Dialer
		conn, err = d.DialContext(ctx, network, addr)
		return err
	})
	return conn, err
}

// WithNetwork has the server run in a network namespace, and the harness call it from there.
func WithNetwork(n *Network) Option {
	return func(s *Server) {
		s.within = n.Do
		transport := &http.Transport{DialContext: n.Dial, MaxIdleConnsPerHost: 16}
		s.client = &http.Client{Transport: transport}
		s.t.Cleanup(transport.CloseIdleConnections)
	}
}

// onLostThread runs f on a thread that ends afterwards.
func onLostThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			done <- onLostThread(f)
			runtime.UnlockOSThread()
			return
		}
		done <- f()
	}()
	return <-done
}
