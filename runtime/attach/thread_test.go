//go:build linux

package attach

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestLostThread: the work runs on a thread that is not the process's first, and that ends.
func TestLostThread(t *testing.T) {
	failed := errors.New("failed")
	for range 50 {
		var thread int
		err := onLostThread(func() error {
			thread = unix.Gettid()
			return failed
		})
		if !errors.Is(err, failed) || thread == 0 || thread == os.Getpid() {
			t.Fatalf("thread %d of %d, %v", thread, os.Getpid(), err)
		}
		path := fmt.Sprintf("/proc/self/task/%d", thread)
		for end := time.Now().Add(20 * time.Second); ; runtime.Gosched() {
			if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
				break
			}
			if time.Now().After(end) {
				t.Fatal("the thread goes on")
			}
		}
	}
}
