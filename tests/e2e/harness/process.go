//go:build e2e

package harness

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// process is a process of the binary under test that can be started again and again.
type process struct {
	t      testing.TB
	binary string
	verb   string
	args   func() []string
	// within is around the start; nil: nothing is.
	within func(start func() error) error

	mu     sync.Mutex
	cmd    *exec.Cmd
	exited chan struct{}
	output *tail
}

// Launch starts the process and waits until it is ready.
func (p *process) Launch() {
	p.t.Helper()
	if err := p.TryLaunch(); err != nil {
		p.t.Fatal(err)
	}
}

// TryLaunch is Launch that returns the error, with the process's last output.
func (p *process) TryLaunch() error {
	cmd := exec.Command(p.binary, append([]string{p.verb}, p.args()...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if p.output == nil {
		p.output = &tail{}
	}
	cmd.Stderr = p.output
	start := cmd.Start
	if p.within != nil {
		start = func() error { return p.within(cmd.Start) }
	}
	if err := start(); err != nil {
		return err
	}
	exited, ready := make(chan struct{}), make(chan struct{})
	read := make(chan struct{})
	go func() {
		defer close(read)
		told := false
		sc := bufio.NewScanner(stdout)
		for sc.Scan() {
			fmt.Fprintln(p.output, sc.Text())
			if !told && strings.HasPrefix(sc.Text(), "ready") {
				told = true
				close(ready)
			}
		}
	}()
	go func() {
		<-read
		_ = cmd.Wait()
		close(exited)
	}()
	p.mu.Lock()
	p.cmd, p.exited = cmd, exited
	p.mu.Unlock()
	select {
	case <-ready:
		return nil
	case <-exited:
		return fmt.Errorf("tatami %s ended (%s):\n%s", p.verb, cmd.ProcessState, p.output)
	case <-time.After(60 * time.Second):
		_ = cmd.Process.Kill()
		<-exited
		return fmt.Errorf("tatami %s was not ready within 60s:\n%s", p.verb, p.output)
	}
}

// Stop ends the process as Ctrl-C does and waits for its end.
func (p *process) Stop() { p.end(syscall.SIGINT) }

// Terminate ends the process as a service manager does and waits for its end.
func (p *process) Terminate() { p.end(syscall.SIGTERM) }

// Kill ends the process with SIGKILL and waits for its end.
func (p *process) Kill() { p.end(syscall.SIGKILL) }

func (p *process) end(sig syscall.Signal) {
	p.t.Helper()
	p.mu.Lock()
	cmd, exited := p.cmd, p.exited
	p.cmd = nil
	p.mu.Unlock()
	if cmd == nil {
		return
	}
	if err := cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Errorf("signal: %v", err)
	}
	select {
	case <-exited:
	case <-time.After(90 * time.Second):
		_ = cmd.Process.Signal(syscall.SIGQUIT)
		<-exited
		p.t.Errorf("tatami %s did not end within 90s of %s:\n%s", p.verb, sig, p.output)
	}
	if sig != syscall.SIGKILL && cmd.ProcessState.ExitCode() != 0 {
		p.t.Errorf("tatami %s ended with %s:\n%s", p.verb, cmd.ProcessState, p.output)
	}
}

// tail keeps the last part of what is written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if over := len(t.b) - 64<<10; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	if t == nil {
		return ""
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}
