package process

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// startTimeout is how long the binary may take until it is ready, endTimeout how long until it has ended.
	startTimeout = time.Minute
	endTimeout   = 90 * time.Second
)

// Process is a running tatami.
type Process struct {
	name   string
	cmd    *exec.Cmd
	output *Tail
	ended  chan struct{}

	mu    sync.Mutex
	lines []string
}

// Config says what is run.
type Config struct {
	// Binary is its path, Args the verb and its flags.
	Binary string
	Args   []string
	// Output keeps the end of what it writes, over restarts too. Default a new one.
	Output *Tail
	// Log takes what it writes to its standard error, where it may outlive this program. Default Output does.
	Log *os.File
	// Within is around the start, for a process that belongs into a namespace. Default nothing is.
	Within func(start func() error) error
}

// Start runs the binary and waits until it says that it is ready, for a minute at most. The error shows the end of what it wrote.
func Start(ctx context.Context, cfg Config) (*Process, error) {
	p := &Process{name: "tatami " + cfg.Args[0], output: cfg.Output, ended: make(chan struct{})}
	if p.output == nil {
		p.output = &Tail{}
	}
	p.cmd = exec.Command(cfg.Binary, cfg.Args...)
	// Ctrl-C reaches who started it, who then ends it in order.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.cmd.Stderr = p.output
	if cfg.Log != nil {
		p.cmd.Stderr = cfg.Log
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if cfg.Within == nil {
		cfg.Within = func(start func() error) error { return start() }
	}
	if err := cfg.Within(p.cmd.Start); err != nil {
		return nil, err
	}
	ready := make(chan struct{})
	go p.watch(out, ready)
	limit := time.NewTimer(startTimeout)
	defer limit.Stop()
	select {
	case <-ready:
		return p, nil
	case <-p.ended:
		return nil, fmt.Errorf("%s ended (%s):\n%s", p.name, p.cmd.ProcessState, p.Output())
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), p.End(syscall.SIGINT))
	case <-limit.C:
		_ = p.End(syscall.SIGKILL)
		return nil, fmt.Errorf("%s was not ready within %s:\n%s", p.name, startTimeout, p.Output())
	}
}

// watch reads the standard output until the process ends; ready is closed when it says so.
func (p *Process) watch(out io.Reader, ready chan<- struct{}) {
	defer close(p.ended)
	told := false
	for sc := bufio.NewScanner(out); sc.Scan(); {
		fmt.Fprintln(p.output, sc.Text())
		if told {
			continue
		}
		p.mu.Lock()
		p.lines = append(p.lines, sc.Text())
		p.mu.Unlock()
		if told = strings.HasPrefix(sc.Text(), "ready"); told {
			close(ready)
		}
	}
	_ = p.cmd.Wait()
}

// PID is its process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Said returns what followed the word in what it announced before it was ready; "" where it said no such thing.
func (p *Process) Said(word string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.lines {
		if f := strings.Fields(l); len(f) > 1 && f[0] == word {
			return strings.Join(f[1:], " ")
		}
	}
	return ""
}

// Output is the end of what it wrote, to its standard error too unless that went elsewhere.
func (p *Process) Output() string {
	if f, ok := p.cmd.Stderr.(*os.File); ok {
		b, err := os.ReadFile(f.Name())
		if err == nil {
			return string(b[max(0, len(b)-tailSize):])
		}
	}
	return p.output.String()
}

// End sends the signal and waits for the end, for 90 s at most. It is an error where the process ends badly, except by SIGKILL.
func (p *Process) End(sig syscall.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("%s: %w", sig, err)
	}
	limit := time.NewTimer(endTimeout)
	defer limit.Stop()
	select {
	case <-p.ended:
	case <-limit.C:
		// It writes what its goroutines wait for.
		_ = p.cmd.Process.Signal(syscall.SIGQUIT)
		<-p.ended
		return fmt.Errorf("%s did not end within %s of %s:\n%s", p.name, endTimeout, sig, p.Output())
	}
	if sig != syscall.SIGKILL && p.cmd.ProcessState.ExitCode() != 0 {
		return fmt.Errorf("%s ended with %s:\n%s", p.name, p.cmd.ProcessState, p.Output())
	}
	return nil
}

// Wait waits for the process to end by itself, for 90 s at most, and returns its exit code.
func (p *Process) Wait() (int, error) {
	limit := time.NewTimer(endTimeout)
	defer limit.Stop()
	select {
	case <-p.ended:
		return p.cmd.ProcessState.ExitCode(), nil
	case <-limit.C:
		return 0, fmt.Errorf("%s did not end by itself within %s:\n%s", p.name, endTimeout, p.Output())
	}
}

const tailSize = 1 << 20

// Tail keeps the last MiB of what is written to it.
type Tail struct {
	// Whole, where it is set, takes all of it too.
	Whole io.Writer

	mu sync.Mutex
	b  []byte
}

// Write never fails.
func (t *Tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.Whole != nil {
		if _, err := t.Whole.Write(p); err != nil {
			t.b = fmt.Appendf(t.b, "not all of this is kept: %v\n", err)
		}
	}
	t.b = append(t.b, p...)
	if over := len(t.b) - tailSize; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
	}
	return len(p), nil
}

// String returns what it keeps.
func (t *Tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}
