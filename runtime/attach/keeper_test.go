//go:build linux

package attach

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"testing"

	"github.com/tatami-faas/tatami/runtime/attach/wire"
)

// standIn is the other side of a connection to a keeper: it takes requests, and answers when it is told to.
func standIn(t *testing.T) (*Keeper, *net.UnixConn) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "k")
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	made := make(chan *net.UnixConn, 1)
	go func() {
		conn, err := l.AcceptUnix()
		if err == nil {
			_, _ = conn.Write([]byte(wire.KeeperHello))
		}
		made <- conn
	}()
	k, err := ConnectKeeper(path)
	if err != nil {
		t.Fatal(err)
	}
	conn := <-made
	t.Cleanup(func() { k.Close(); conn.Close() })
	return k, conn
}

// TestSpawnLate: an answer that nobody waits for any more is not taken for another's, and does not end the connection.
func TestSpawnLate(t *testing.T) {
	t.Parallel()
	k, conn := standIn(t)
	requests := make(chan struct{}, 2)
	go func() {
		for {
			if n, err := conn.Read(make([]byte, wire.MaxSpawn)); err != nil || n == 0 {
				return
			}
			requests <- struct{}{}
		}
	}()
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, _, err := k.Spawn(ctx, wire.Spawn{ID: "first"}, nil)
		failed <- err
	}()
	<-requests
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Fatalf("%v", err)
	}
	go func() {
		<-requests
		for _, pid := range []uint32{1, 2} {
			_, _ = conn.Write((&wire.Spawned{PID: pid}).Encode())
		}
	}()
	pid, init, err := k.Spawn(t.Context(), wire.Spawn{ID: "second"}, nil)
	if err != nil || pid != 2 {
		t.Fatalf("%d, %v", pid, err)
	}
	init.Close()
	select {
	case <-k.Gone():
		t.Error("the connection has ended")
	default:
	}
}

// TestSpawnRefused: the keeper's reason is told, and its end.
func TestSpawnRefused(t *testing.T) {
	t.Parallel()
	k, conn := standIn(t)
	go func() {
		_, _ = conn.Read(make([]byte, wire.MaxSpawn))
		_, _ = conn.Write((&wire.Spawned{Why: "no memory"}).Encode())
		_, _ = conn.Read(make([]byte, wire.MaxSpawn))
		conn.Close()
	}()
	if _, _, err := k.Spawn(t.Context(), wire.Spawn{}, nil); err == nil || err.Error() != "no memory" {
		t.Errorf("%v", err)
	}
	if _, _, err := k.Spawn(t.Context(), wire.Spawn{}, nil); err == nil {
		t.Error("a keeper that has ended started a process")
	}
	<-k.Gone()
}
