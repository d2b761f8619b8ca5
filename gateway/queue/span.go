package queue

import (
	"context"
	"sync"

	"github.com/tatami-faas/tatami/gateway/http1"
)

// span is the context of an attempt whose lease ends it in time by itself: it ends when the attempt is to be broken off, or with the process's work. It
// does what one of context.WithCancel does, for less: nearly every attempt ends by itself, and nobody has waited for more than one call then.
type span struct {
	// Context is what the queue's work lives by. It tells the values; Queue.endSpans tells of its end.
	context.Context

	mu sync.Mutex
	// done is made when it is asked for.
	done chan struct{}
	err  error
	by   http1.Watcher
}

// end ends the attempt.
func (s *span) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	s.err = context.Canceled
	if s.done != nil {
		close(s.done)
	}
	if s.by != nil {
		go s.by.Gone()
	}
}

// Done is closed at the end.
func (s *span) Done() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done == nil {
		s.done = make(chan struct{})
		if s.err != nil {
			close(s.done)
		}
	}
	return s.done
}

// Err is not nil after the end.
func (s *span) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Watch has the watcher told of the end, as context.AfterFunc would, until Unwatch.
func (s *span) Watch(_ context.Context, by http1.Watcher) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.by = by; s.err != nil {
		go by.Gone()
	}
	return true
}

// Unwatch ends what Watch began. It reports whether the watcher is told, or is about to be.
func (s *span) Unwatch() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.by = nil
	return s.err != nil
}

// spanOf begins the context of an attempt. It ends with the process's work, too, until the attempt is unstoppable.
func (q *Queue) spanOf(h *held) *span {
	s := &span{Context: q.alive}
	q.mu.Lock()
	h.span = s
	q.mu.Unlock()
	if q.alive.Err() != nil {
		// endSpans may have come before.
		s.end()
	}
	return s
}

// endSpans ends the attempts under way, after the context that the queue's work lives by.
func (q *Queue) endSpans() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, h := range q.held {
		for ; h != nil; h = h.next {
			if h.span != nil {
				h.span.end()
			}
		}
	}
}
