package leaks

import (
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// What ends late is no leak, what does not end is.
func TestFind(t *testing.T) {
	before := goleak.IgnoreCurrent()
	end := make(chan struct{})
	go stay(end)
	if err := find(time.Millisecond, before); err == nil || !strings.Contains(err.Error(), "leaks.stay") {
		t.Errorf("one that stays: %v", err)
	}
	// Longer than the library looks for by itself.
	time.AfterFunc(2*time.Second, func() { close(end) })
	if err := find(time.Minute, before); err != nil {
		t.Errorf("one that ends: %v", err)
	}
}

func stay(end <-chan struct{}) { <-end }
