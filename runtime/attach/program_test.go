//go:build linux

package attach

import (
	"os"
	"os/exec"
	"testing"
)

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

// TestIsInit: a process is told to be an init by the program that it runs.
func TestIsInit(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("/bin/cat")
	if err != nil {
		t.Fatal(err)
	}
	p, err := programOf(raw)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	cmd := exec.Command(p.path())
	// One program may be many, which goes by its name.
	cmd.Args = []string{"cat"}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if !IsInit(cmd.Process.Pid) {
		t.Error("an init is not known as one")
	}
	if err := stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if IsInit(cmd.Process.Pid) || IsInit(os.Getpid()) || IsInit(0) {
		t.Error("what is no init is taken for one")
	}
}
