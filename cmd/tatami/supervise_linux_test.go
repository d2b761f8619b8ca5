package main

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/internal/fault"
)

// recorder makes parts that note when they start and end.
type recorder struct {
	mu     sync.Mutex
	events []string
}

func (r *recorder) note(e string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

func (r *recorder) part(name string, fail error) part {
	ready := make(chan struct{})
	return part{name: name, run: func(ctx context.Context) error {
		r.note("+" + name)
		if fail != nil {
			return fail
		}
		close(ready)
		<-ctx.Done()
		r.note("-" + name)
		return nil
	}, ready: func() <-chan struct{} { return ready }}
}

func TestSuperviseOrder(t *testing.T) {
	t.Parallel()
	r := &recorder{}
	ctx, cancel := context.WithCancel(t.Context())
	err := supervise(ctx, slog.New(slog.DiscardHandler), []part{r.part("a", nil), r.part("b", nil), r.part("c", nil)}, func() {
		r.note("up")
		cancel()
	})
	if want := []string{"+a", "+b", "+c", "up", "-c", "-b", "-a"}; err != nil || !slices.Equal(r.events, want) {
		t.Errorf("%v, %v", r.events, err)
	}
}

func TestSuperviseFailure(t *testing.T) {
	t.Parallel()
	r := &recorder{}
	broken := errors.New("broken")
	err := supervise(t.Context(), slog.New(slog.DiscardHandler), []part{r.part("a", nil), r.part("b", broken), r.part("c", nil)}, func() { r.note("up") })
	if want := []string{"+a", "+b", "-a"}; !errors.Is(err, broken) || !slices.Equal(r.events, want) {
		t.Errorf("%v, %v", r.events, err)
	}
}

// A part that is not ready in time ends the others.
func TestSuperviseBound(t *testing.T) {
	t.Parallel()
	r := &recorder{}
	slow := part{name: "slow", run: func(ctx context.Context) error {
		r.note("+slow")
		<-ctx.Done()
		r.note("-slow")
		return nil
	}, ready: func() <-chan struct{} { return nil }, within: time.Millisecond}
	err := supervise(t.Context(), slog.New(slog.DiscardHandler), []part{r.part("a", nil), slow, r.part("c", nil)}, func() { r.note("up") })
	if want := []string{"+a", "+slow", "-slow", "-a"}; !fault.Is(err, fault.CodeUnavailable) || !slices.Equal(r.events, want) {
		t.Errorf("%v, %v", r.events, err)
	}
}
