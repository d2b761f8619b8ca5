//go:build linux

package attach

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"

	"github.com/tatami-faas/tatami/runtime/attach/wire"
)

// pair returns both ends of a connection: the worker's and the init's.
func pair(t *testing.T) (ours, theirs *net.UnixConn) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	theirs, err = net.DialUnix("unix", nil, &net.UnixAddr{Name: l.Addr().String(), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	if ours, err = l.AcceptUnix(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	return ours, theirs
}

func TestSetUp(t *testing.T) {
	t.Parallel()
	for _, answer := range []string{string(rune(wire.Hello)), string(rune(wire.Hello + 1)), "mount /: no"} {
		ours, theirs := pair(t)
		go func() {
			b := make([]byte, 4)
			_, _ = io.ReadFull(theirs, b)
			_, _ = io.WriteString(theirs, answer)
		}()
		err := SetUp(t.Context(), ours, []byte("work"))
		var refused *RefusedError
		switch answer[0] {
		case wire.Hello:
			if err != nil {
				t.Error(err)
			}
		case wire.Hello + 1:
			if err == nil || errors.As(err, &refused) {
				t.Errorf("an init of another version was taken: %v", err)
			}
		default:
			if !errors.As(err, &refused) || refused.Why != answer {
				t.Errorf("%v", err)
			}
		}
	}
	ours, _ := pair(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := SetUp(ctx, ours, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestSend(t *testing.T) {
	t.Parallel()
	for _, answer := range []string{"", "no such program"} {
		ours, theirs := pair(t)
		got := make(chan string, 1)
		go func() {
			b := make([]byte, 5)
			_, _ = io.ReadFull(theirs, b)
			_, _ = io.WriteString(theirs, answer)
			theirs.Close()
			got <- string(b)
		}()
		err := Send(t.Context(), ours, []byte("work"))
		var refused *RefusedError
		if answer == "" && err != nil || answer != "" && (!errors.As(err, &refused) || refused.Why != answer) {
			t.Errorf("%q: %v", answer, err)
		}
		if b := <-got; b != "work"+string(rune(wire.Begin)) {
			t.Errorf("%q", b)
		}
	}
	ours, theirs := pair(t)
	theirs.Close()
	var refused *RefusedError
	if err := Await(t.Context(), ours, Begin(ours)); err == nil || errors.As(err, &refused) {
		t.Errorf("an init that has ended before it was to begin: %v", err)
	}
	if err := Send(t.Context(), ours, make([]byte, 1<<20)); err == nil || errors.As(err, &refused) {
		t.Errorf("an init that has ended: %v", err)
	}
}

// TestBegin: an init waits for a word, and that word is sent.
func TestBegin(t *testing.T) {
	t.Parallel()
	ours, theirs := pair(t)
	if err := Begin(ours); err != nil {
		t.Fatal(err)
	}
	if err := ours.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(theirs); err != nil || len(b) != 1 || b[0] != wire.Begin {
		t.Errorf("%q, %v", b, err)
	}
}

// TestRefusedBeforeBegin: an init that ends while it gets ready has said why, whether it still hears that it is to begin or not.
func TestRefusedBeforeBegin(t *testing.T) {
	t.Parallel()
	for _, late := range []bool{false, true} {
		ours, theirs := pair(t)
		if err := Hand(t.Context(), ours, []byte("work")); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 8)
		if n, err := theirs.Read(b); err != nil || string(b[:n]) != "work" {
			t.Errorf("%q, %v", b[:n], err)
		}
		if _, err := io.WriteString(theirs, "no such user"); err != nil {
			t.Fatal(err)
		}
		if late {
			// It leaves the word unread: its end breaks the connection.
			if _, err := ours.Write([]byte{wire.Begin}); err != nil {
				t.Fatal(err)
			}
		}
		theirs.Close()
		err := Await(t.Context(), ours, Begin(ours))
		var refused *RefusedError
		if !errors.As(err, &refused) || refused.Why != "no such user" {
			t.Errorf("%v", err)
		}
	}
}
