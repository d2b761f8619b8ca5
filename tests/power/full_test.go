//go:build e2e

package power

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// A filesystem that somebody else fills stops the server's stream for good: that must be seen at once, and lose nothing.
func TestADiskThatSomebodyElseFilled(t *testing.T) {
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=64m"); err != nil {
		t.Fatalf("this test mounts a small filesystem and must run as root: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, 0); err != nil {
			t.Errorf("unmounting: %v", err)
		}
	})
	ref := functions.Ref{Namespace: "default", Name: "hello"}
	publish := func(b *bus.Bus) (functions.InvocationID, error) {
		id := functions.NewInvocationID(ref)
		subject, _ := bus.InvocationSubject(id)
		// The server does not answer to what it could not write.
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		go func() {
			select {
			case <-b.Failed():
				cancel()
			case <-ctx.Done():
			}
		}()
		if _, err := b.JetStream().Publish(ctx, subject, make([]byte, 100_000)); err != nil {
			return id, b.Fault(err, "storing")
		}
		return id, b.Barrier(t.Context(), bus.StreamInvocations)
	}
	// A reserve of nothing: what the reserve is there to prevent is wanted here.
	cfg := bus.Config{DataDir: filepath.Join(disk, "data"), ReserveBytes: 1}
	b, err := bus.Open(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	stored, err := publish(b)
	if err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(disk, "filler")
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(make([]byte, 1<<16))
	}
	_ = f.Close()
	_, err = publish(b)
	wantFull(t, err)
	select {
	case <-b.Failed():
	case <-time.After(time.Minute):
		t.Fatal("nobody is told")
	}
	wantFull(t, b.Room())
	wantFull(t, b.Barrier(t.Context(), bus.StreamInvocations))
	_ = b.Close(t.Context())
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	b, err = bus.Open(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close(t.Context()) }()
	subject, _ := bus.InvocationSubject(stored)
	if _, err := b.Invocations().GetLastMsgForSubject(t.Context(), subject); err != nil {
		t.Errorf("what was stored is lost: %v", err)
	}
	if _, err := publish(b); err != nil {
		t.Errorf("with space again: %v", err)
	}
}

func wantFull(t *testing.T, err error) {
	t.Helper()
	if fault.CodeOf(err) != fault.CodeStorageFull {
		t.Fatalf("got error %v, want one with the code %s", err, fault.CodeStorageFull)
	}
}
