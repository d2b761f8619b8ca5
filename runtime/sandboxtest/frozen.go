package sandboxtest

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/internal/fault"
)

// frozenRounds is how often a request meets a freeze.
const frozenRounds = 200

func (s *suite) frozen(t *testing.T) {
	if s.Guest {
		c := s.create(t, s.spec())
		if err := c.Freeze(t.Context()); !fault.Is(err, fault.CodeUnavailable) {
			t.Errorf("freeze: %v", err)
		}
		thaw(t, c)
		if got := c.get("/"); got != "hello" {
			t.Errorf("%q", got)
		}
		return
	}
	t.Run("stands still", func(t *testing.T) {
		c := s.create(t, s.spec())
		c.get("/")
		freeze(t, c)
		before, err := c.Stats(t.Context())
		if err != nil || before.Memory <= 0 {
			t.Errorf("stats of a frozen one: %+v, %v", before, err)
		}
		answer := make(chan error, 1)
		go func() {
			got, err := c.try("/")
			if err == nil && got != "hello" {
				err = errors.New(got)
			}
			answer <- err
		}()
		select {
		case err := <-answer:
			t.Errorf("a frozen one answered: %v", err)
		case <-time.After(100 * time.Millisecond):
		}
		if after, err := c.Stats(t.Context()); err != nil || after.CPU != before.CPU {
			t.Errorf("it used %s of the processor, %v", after.CPU-before.CPU, err)
		}
		if _, err := c.Reclaim(t.Context()); err != nil && !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("reclaim: %v", err)
		}
		thaw(t, c)
		if err := <-answer; err != nil {
			t.Errorf("the request that waited: %v", err)
		}
		// Neither changes anything a second time.
		thaw(t, c)
		freeze(t, c)
		freeze(t, c)
		thaw(t, c)
		if got := c.get("/"); got != "hello" {
			t.Errorf("%q", got)
		}
	})
	t.Run("is stopped", func(t *testing.T) {
		c := s.create(t, s.spec())
		freeze(t, c)
		if err := c.Stop(t.Context(), time.Minute); err != nil {
			t.Fatal(err)
		}
		if code := c.Exit().Code; code == 137 {
			t.Errorf("exit code %d: it was not thawed before SIGTERM", code)
		}
		thaw(t, c)
	})
	t.Run("is adopted", func(t *testing.T) {
		c := s.create(t, s.spec())
		freeze(t, c)
		s.reopen(t)
		again := s.find(t, c.Info().ID)
		if again == nil {
			t.Fatal("it is not listed")
		}
		thaw(t, again)
		if got := serving(t, again).get("/"); got != "hello" {
			t.Errorf("%q", got)
		}
	})
	t.Run("against requests", func(t *testing.T) {
		c := s.create(t, s.spec())
		for range frozenRounds {
			// A lease may come at any moment of the freezing, and then ends it.
			ctx, cancel := context.WithTimeout(t.Context(), rand.N(2*time.Millisecond))
			if err := c.Freeze(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("freeze: %v", err)
			}
			cancel()
			thaw(t, c)
			if got := c.get("/"); got != "hello" {
				t.Fatalf("%q", got)
			}
		}
	})
}

type freezer interface {
	Freeze(ctx context.Context) error
	Thaw() error
}

func freeze(t testing.TB, f freezer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := f.Freeze(ctx); err != nil {
		t.Fatalf("freeze: %v", err)
	}
}

func thaw(t testing.TB, f freezer) {
	t.Helper()
	if err := f.Thaw(); err != nil {
		t.Fatalf("thaw: %v", err)
	}
}
