package worker

import (
	"context"
	"sync"

	"github.com/tatami-faas/tatami/functions"
)

// turns bounds how many sandboxes are made at once. Those that wait are let in by turns: one of each function, and of one function by
// their order, so that a function which starts a hundred instances holds nobody else up.
type turns struct {
	mu   sync.Mutex
	free int
	// waiting holds who waits, by function; order holds the functions in it, whose turn is next first.
	waiting map[functions.Ref][]chan struct{}
	order   []functions.Ref
}

func newTurns(n int) *turns {
	return &turns{free: n, waiting: map[functions.Ref][]chan struct{}{}}
}

// take waits for the function's turn. Without an error give must be called afterwards.
func (t *turns) take(ctx context.Context, ref functions.Ref) error {
	t.mu.Lock()
	if t.free > 0 {
		t.free--
		t.mu.Unlock()
		return nil
	}
	turn := make(chan struct{})
	if len(t.waiting[ref]) == 0 {
		t.order = append(t.order, ref)
	}
	t.waiting[ref] = append(t.waiting[ref], turn)
	t.mu.Unlock()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	if !t.leave(ref, turn) {
		// The turn came at the same time: it is the next one's.
		t.give()
	}
	return ctx.Err()
}

// give ends a turn.
func (t *turns) give() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.order) == 0 {
		t.free++
		return
	}
	ref := t.order[0]
	t.order = t.order[1:]
	list := t.waiting[ref]
	close(list[0])
	if len(list) == 1 {
		delete(t.waiting, ref)
		return
	}
	t.waiting[ref] = list[1:]
	t.order = append(t.order, ref)
}

// leave takes one that waits out; false when its turn has come.
func (t *turns) leave(ref functions.Ref, turn chan struct{}) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := t.waiting[ref]
	for i, c := range list {
		if c != turn {
			continue
		}
		if len(list) > 1 {
			t.waiting[ref] = append(list[:i:i], list[i+1:]...)
			return true
		}
		delete(t.waiting, ref)
		for j, r := range t.order {
			if r == ref {
				t.order = append(t.order[:j:j], t.order[j+1:]...)
				break
			}
		}
		return true
	}
	return false
}
