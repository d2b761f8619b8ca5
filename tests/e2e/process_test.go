//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"
)

// killProcess ends a process with SIGKILL and waits until it is gone.
func killProcess(pid int) error {
	if pid <= 1 {
		return fmt.Errorf("no process %d", pid)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return err
	}
	for begun := time.Now(); !ended(pid); time.Sleep(10 * time.Millisecond) {
		if time.Since(begun) > time.Minute {
			return fmt.Errorf("process %d did not end", pid)
		}
	}
	return nil
}

// ended says whether a process is gone, or is a zombie that its parent has not yet collected.
func ended(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	// The state follows the command's name, which stands in brackets and may hold any byte.
	_, state, ok := bytes.Cut(stat[max(0, bytes.LastIndexByte(stat, ')')):], []byte(") "))
	return ok && bytes.HasPrefix(state, []byte("Z"))
}

func opener(b []byte) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }
}
