package api_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"sync"
	"testing"

	"github.com/tatami-faas/tatami/gateway/client"
	"github.com/tatami-faas/tatami/tests/cli/standin"
)

// stored is how many bytes the store of artifacts holds, whatever they belong to.
func stored(t *testing.T, s *standin.System) uint64 {
	t.Helper()
	stream, err := s.Bus.JetStream().Stream(t.Context(), s.Bus.Artifacts().Stream())
	if err != nil {
		t.Fatal(err)
	}
	return stream.CachedInfo().State.Bytes
}

func content(size int) (b []byte, digest string) {
	b = make([]byte, size)
	_, _ = rand.Read(b)
	sum := sha256.Sum256(b)
	return b, "sha256:" + hex.EncodeToString(sum[:])
}

// stalled yields the first half, then waits for its sibling's end.
type stalled struct {
	io.Reader
	begun chan<- struct{}
	next  <-chan struct{}
	once  sync.Once
}

func (s *stalled) Read(p []byte) (int, error) {
	s.once.Do(func() {
		close(s.begun)
		<-s.next
	})
	return s.Reader.Read(p)
}

func put(ctx context.Context, c *client.Client, digest string, r io.Reader, size int) error {
	return c.PutBlob(ctx, digest, r, int64(size))
}

// Several clients that upload one blob at the same time all succeed, and it is stored once.
func TestOneBlobFromManyClients(t *testing.T) {
	t.Parallel()
	s := standin.Start(t, standin.Config{})
	const size = 2 << 20
	b, digest := content(size)
	begun, proceed := make(chan struct{}), make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		half := io.MultiReader(bytes.NewReader(b[:size/2]), &stalled{Reader: bytes.NewReader(b[size/2:]), begun: begun, next: proceed})
		if err := put(t.Context(), s.Client(t), digest, half, size); err != nil {
			t.Error(err)
		}
	})
	<-begun
	for range 3 {
		all.Go(func() {
			if err := put(t.Context(), s.Client(t), digest, bytes.NewReader(b), size); err != nil {
				t.Error(err)
			}
		})
	}
	close(proceed)
	all.Wait()
	if n := stored(t, s); n > size+size/4 {
		t.Errorf("%d bytes are stored for a blob of %d", n, size)
	}
}

// An upload that breaks off leaves nothing behind, and another client's upload of the same blob takes over.
func TestUploadThatBreaksOff(t *testing.T) {
	t.Parallel()
	s := standin.Start(t, standin.Config{})
	const size = 2 << 20
	b, digest := content(size)
	ctx, leave := context.WithCancel(t.Context())
	begun := make(chan struct{})
	left := make(chan error, 1)
	go func() {
		half := io.MultiReader(bytes.NewReader(b[:size/2]), &stalled{Reader: bytes.NewReader(nil), begun: begun, next: ctx.Done()})
		left <- put(ctx, s.Client(t), digest, half, size)
	}()
	<-begun
	second := make(chan error, 1)
	go func() { second <- put(t.Context(), s.Client(t), digest, bytes.NewReader(b), size) }()
	leave()
	if err := <-left; err == nil {
		t.Error("half an upload is taken")
	}
	if err := <-second; err != nil {
		t.Error(err)
	}
	if n := stored(t, s); n > size+size/4 {
		t.Errorf("%d bytes are stored for a blob of %d", n, size)
	}
}
