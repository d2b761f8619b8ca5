package process

import (
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
)

// Programs that are written while other processes begin all the time can be run.
func TestWriteProgram(t *testing.T) {
	t.Parallel()
	for range 4 {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			for i := range 100 {
				path := filepath.Join(t.TempDir(), strconv.Itoa(i))
				if err := WriteProgram(path, []byte("#!/bin/sh\nexit 3\n"), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := exec.Command(path).Run(); err == nil || err.Error() != "exit status 3" {
					t.Fatalf("the program: %v", err)
				}
			}
		})
	}
}
