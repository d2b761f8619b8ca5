package bus

import (
	"strings"
	"sync"

	"github.com/tatami-faas/tatami/internal/fault"
)

// failure is the end of the store: what is on disk is no longer known, or cannot be written any more. The first cause stays.
type failure struct {
	mu  sync.Mutex
	err error
	ch  chan struct{}
}

func newFailure() *failure { return &failure{ch: make(chan struct{})} }

// set reports whether this is the first cause.
func (f *failure) set(err error) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return false
	}
	f.err = err
	close(f.ch)
	return true
}

func (f *failure) get() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// writeFailure reads what the server logs when it could not write a block: it answers no publish to the stream from then on, and says so
// nowhere else.
func writeFailure(text string) error {
	if !strings.Contains(strings.ToLower(text), "critical write error") {
		return nil
	}
	code, hint := fault.CodeUnavailable, "nothing is accepted any more: check the disk, then restart tatami"
	if strings.Contains(text, "no space left") {
		code, hint = fault.CodeStorageFull, "free disk space, then restart tatami: what was accepted goes on"
	}
	return fault.New(code, "the store could not be written: %s", text).WithHint("%s", hint)
}
