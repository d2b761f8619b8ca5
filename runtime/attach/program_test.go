//go:build linux

package attach

import "testing"

// TestProgramAboveFiles: what a started process is given never takes the descriptor by which it finds the program.
func TestProgramAboveFiles(t *testing.T) {
	t.Parallel()
	p, err := programOf([]byte("#!/bin/true\n"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if fd := p.file.Fd(); fd < aboveFiles {
		t.Errorf("the program has the descriptor %d, which may be one that a process is given", fd)
	}
}
