package http1

import (
	"context"
	"sync"
)

// Watcher is told that nobody waits for an answer any more.
type Watcher interface {
	// Gone is called from a goroutine of its own.
	Gone()
}

// watch is who is told of a connection's end: context.AfterFunc with the connection's context, made once and not for each request.
type watch struct {
	mu    sync.Mutex
	ended bool
	by    Watcher
}

// end tells the watcher.
func (w *watch) end() {
	w.mu.Lock()
	w.ended = true
	by := w.by
	w.mu.Unlock()
	if by != nil {
		by.Gone()
	}
}

// Watch has the watcher told when the context ends before Unwatch, as context.AfterFunc would. False where the context is not that of the
// connection's requests: then nobody is told.
func (a *answer) Watch(ctx context.Context, by Watcher) bool {
	if ctx != a.c.blank.Context() {
		return false
	}
	w := &a.c.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.by = by; w.ended {
		go by.Gone()
	}
	return true
}

// Unwatch ends what Watch began. It reports whether the watcher is told, or is about to be: if not, nobody knows it any more.
func (a *answer) Unwatch() bool {
	w := &a.c.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	w.by = nil
	return w.ended
}
