package bus_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// messages is how many messages the bucket's stream holds: one for each part, and one for each name.
func messages(t *testing.T, b *bus.Bus, o *bus.Objects) uint64 {
	t.Helper()
	s, err := b.JetStream().Stream(t.Context(), o.Stream())
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo().State.Msgs
}

// leaver yields some content and then ends the context it is read under, as a client does that goes away.
type leaver struct {
	left  int
	leave context.CancelFunc
}

func (l *leaver) Read(p []byte) (int, error) {
	if l.left <= 0 {
		l.leave()
		return 0, nil
	}
	n := min(len(p), l.left, 1000)
	l.left -= n
	return n, nil
}

func TestNothingStaysOfAnObjectWhoseWriterLeft(t *testing.T) {
	t.Parallel()
	b := open(t, bus.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := b.Artifacts().Put(ctx, "x", &leaver{left: 1 << 20, leave: cancel}); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	if has, err := b.Artifacts().Has(t.Context(), "x"); err != nil || has {
		t.Fatalf("the object exists: %v, error %v", has, err)
	}
	if n := messages(t, b, b.Artifacts()); n != 0 {
		t.Errorf("%d messages are left behind", n)
	}
}

// A source that yields little at a time makes no more parts than one that yields much.
func TestPartsAreFilled(t *testing.T) {
	t.Parallel()
	b := open(t, bus.Config{})
	if _, err := b.Bodies().Put(t.Context(), "x", io.LimitReader(&leaver{left: 1 << 30}, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if n := messages(t, b, b.Bodies()); n > 9 {
		t.Errorf("%d messages for 1 MiB", n)
	}
}

func TestPartsOfAnEarlierProcessGo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := open(t, bus.Config{DataDir: dir})
	if _, err := b.Artifacts().Put(t.Context(), "whole", strings.NewReader("whole")); err != nil {
		t.Fatal(err)
	}
	for range 3 { // a process that ends here had not come to the object's name
		if _, err := b.JetStream().Publish(t.Context(), "$O."+bus.ObjectsArtifacts+".C.half", []byte("half")); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	b = open(t, bus.Config{DataDir: dir})
	if n := messages(t, b, b.Artifacts()); n != 2 {
		t.Errorf("%d messages, want the part and the name of the whole object", n)
	}
	r, _, err := b.Artifacts().Open(t.Context(), "whole")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if data, err := io.ReadAll(r); err != nil || string(data) != "whole" {
		t.Errorf("%q, error %v", data, err)
	}
}

// Content that is replaced while it is read, and content that is not what was written, ends with an error.
func TestReadingOfOtherContent(t *testing.T) {
	t.Parallel()
	b := open(t, bus.Config{})
	content := strings.Repeat("x", 300<<10)
	put := func() {
		t.Helper()
		if _, err := b.Bodies().Put(t.Context(), "x", strings.NewReader(content)); err != nil {
			t.Fatal(err)
		}
	}
	put()
	r, _, err := b.Bodies().Open(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	put()
	_, err = io.Copy(io.Discard, r)
	wantCode(t, err, fault.CodeConflict)

	s, err := b.JetStream().Stream(t.Context(), b.Bodies().Stream())
	if err != nil {
		t.Fatal(err)
	}
	parts := "$O." + bus.ObjectsBodies + ".C.>"
	last, err := s.GetLastMsgForSubject(t.Context(), parts)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteMsg(t.Context(), last.Sequence); err != nil {
		t.Fatal(err)
	}
	if _, err := b.JetStream().Publish(t.Context(), last.Subject, []byte(strings.Repeat("y", len(last.Data)))); err != nil {
		t.Fatal(err)
	}
	if r, _, err = b.Bodies().Open(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if n, err := io.Copy(io.Discard, r); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("%d bytes are read; %v", n, err)
	}
}

func TestReadingEndsWithItsContext(t *testing.T) {
	t.Parallel()
	b := open(t, bus.Config{})
	if _, err := b.Bodies().Put(t.Context(), "x", io.LimitReader(&leaver{left: 1 << 30}, 1<<20)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r, _, err := b.Bodies().Open(ctx, "x")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cancel()
	if n, err := io.Copy(io.Discard, r); err == nil {
		t.Errorf("%d bytes are read without an error", n)
	}
	if _, _, err := b.Bodies().Open(ctx, "x"); err == nil {
		t.Error("the object is opened")
	}
}

// A listing ends, too, while what it was to list goes.
func TestListingWhileObjectsGo(t *testing.T) {
	t.Parallel()
	b := open(t, bus.Config{})
	done := make(chan error, 1)
	ctx, stop := context.WithCancel(t.Context())
	go func() {
		for ctx.Err() == nil {
			if _, err := b.Bodies().Put(t.Context(), "x", strings.NewReader("x")); err != nil {
				done <- err
				return
			}
			if err := b.Bodies().Delete(t.Context(), "x"); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	limited, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for range 50 {
		if _, err := b.Bodies().List(limited); err != nil {
			t.Error(err)
			break
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A listing that its caller gives up leaves nothing behind: what still comes of it is taken. The package's tests end with a look for such remains.
func TestListingGivenUp(t *testing.T) {
	t.Parallel()
	b := open(t, bus.Config{})
	const objects = 150
	for i := range objects {
		if _, err := b.Bodies().Put(t.Context(), fmt.Sprint(i), strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 40 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*200*time.Microsecond)
		got, err := b.Bodies().List(ctx)
		cancel()
		if err == nil && len(got) != objects {
			t.Errorf("%d objects are listed", len(got))
		}
	}
}

// Whoever reads an object of which nothing comes any more is not held by it: neither once it is closed, nor once its caller has gone.
func TestReadingOfWhatDoesNotCome(t *testing.T) {
	t.Parallel()
	b := open(t, bus.Config{})
	if _, err := b.Bodies().Put(t.Context(), "x", strings.NewReader(strings.Repeat("x", 300<<10))); err != nil {
		t.Fatal(err)
	}
	s, err := b.JetStream().Stream(t.Context(), b.Bodies().Stream())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Purge(t.Context(), jetstream.WithPurgeSubject("$O."+bus.ObjectsBodies+".C.>")); err != nil {
		t.Fatal(err)
	}
	for name, end := range map[string]func(io.Closer, context.CancelFunc){
		"closed":   func(r io.Closer, _ context.CancelFunc) { _ = r.Close() },
		"left":     func(_ io.Closer, leave context.CancelFunc) { leave() },
		"left and": func(r io.Closer, leave context.CancelFunc) { leave(); _ = r.Close() },
	} {
		ctx, leave := context.WithCancel(t.Context())
		r, _, err := b.Bodies().Open(ctx, "x")
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() {
			_, err := io.Copy(io.Discard, r)
			done <- err
		}()
		// As long as that takes it is read for sure, as far as there is anything.
		for range 20 {
			if _, err := b.Bodies().Has(t.Context(), "x"); err != nil {
				t.Fatal(err)
			}
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			end(r, leave)
		}()
		limit := time.After(time.Minute)
		for range 2 {
			select {
			case err := <-done:
				if err == nil {
					t.Errorf("%s: all of it was read", name)
				}
			case <-ended:
				ended = nil
			case <-limit:
				t.Fatalf("%s: the reading goes on", name)
			}
		}
		leave()
		_ = r.Close()
	}
}
