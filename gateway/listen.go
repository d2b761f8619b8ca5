package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/tatami-faas/tatami/internal/fault"
)

// controlGroup may use the control socket, where the group exists.
const controlGroup = "tatami"

func listenTCP(ctx context.Context, flag, addr string) (net.Listener, error) {
	var lc net.ListenConfig
	// A socket of several paths cannot settle before it ends.
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(ctx, "tcp", addr)
	switch {
	case err == nil:
		return l, nil
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fault.New(fault.CodeConflict, "the address %s is in use", addr).WithField(flag).
			WithHint("stop what listens there, or choose another address with --%s", flag)
	case errors.Is(err, syscall.EADDRNOTAVAIL), errors.Is(err, syscall.EACCES):
		return nil, fault.Wrap(fault.CodeInvalidRequest, err, "cannot listen on %s", addr).WithField(flag).
			WithHint("choose another address with --%s", flag)
	}
	return nil, fault.Wrap(fault.CodeInvalidRequest, err, "--%s: %q is no address to listen on", flag, addr).WithField(flag).
		WithHint("write host:port, such as 127.0.0.1:8080")
}

// listenUnix listens on a socket that only root, or root and the group tatami, may connect to, from the moment it has its name. A socket
// that an earlier process left behind is replaced; one that is served is not.
func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	var d net.Dialer
	probe, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if c, err := d.DialContext(probe, "unix", path); err == nil {
		_ = c.Close()
		return nil, fault.New(fault.CodeConflict, "another tatami serves %s", path).WithField("run-dir").
			WithHint("stop it, or choose another directory with --run-dir")
	}
	// Made in a directory that is closed to everybody else, given its rights, then moved to its place.
	dir, err := os.MkdirTemp(filepath.Dir(path), ".control-")
	if err != nil {
		return nil, fault.Wrap(fault.CodeInvalidRequest, err, "the control socket cannot be made").WithField("run-dir")
	}
	defer os.RemoveAll(dir)
	hidden := filepath.Join(dir, "s")
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", hidden)
	if err != nil {
		return nil, fault.Wrap(fault.CodeInvalidRequest, err, "the control socket cannot be made").WithField("run-dir")
	}
	if ul, ok := l.(*net.UnixListener); ok {
		ul.SetUnlinkOnClose(false)
	}
	if err = restrict(hidden); err == nil {
		err = os.Rename(hidden, path)
	}
	if err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("placing the control socket: %w", err)
	}
	return &unixListener{Listener: l, path: path}, nil
}

// restrict gives the socket to root and the group tatami, or to root alone.
func restrict(path string) error {
	g, err := user.LookupGroup(controlGroup)
	if err != nil || os.Geteuid() != 0 {
		return os.Chmod(path, 0o600)
	}
	gid, err := strconv.Atoi(g.Gid)
	if err != nil {
		return fmt.Errorf("the group %s has the id %q: %w", controlGroup, g.Gid, err)
	}
	if err := os.Chown(path, 0, gid); err != nil {
		return err
	}
	return os.Chmod(path, 0o660)
}

// unixListener removes its socket when it is closed.
type unixListener struct {
	net.Listener
	path string
}

// Close stops listening and removes the socket.
func (l *unixListener) Close() error {
	err := l.Listener.Close()
	if rerr := os.Remove(l.path); rerr != nil && !os.IsNotExist(rerr) && err == nil {
		err = rerr
	}
	return err
}
