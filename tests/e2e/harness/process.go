//go:build e2e

package harness

import (
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/tatami-faas/tatami/tests/process"
)

// restartable is a process of the binary under test that can be started again and again.
type restartable struct {
	t      testing.TB
	binary string
	verb   string
	args   func() []string
	output *process.Tail
	// within is around the start; nil: nothing is.
	within func(start func() error) error

	mu      sync.Mutex
	running *process.Process
}

// logsDir names the environment variable of a directory that takes all that servers and workers write.
const logsDir = "TATAMI_LOGS"

// newOutput keeps what a process of the name writes: its end, and all of it where that is wanted.
func newOutput(t testing.TB, name string) *process.Tail {
	t.Helper()
	out := &process.Tail{}
	dir := os.Getenv(logsDir)
	if dir == "" {
		return out
	}
	f, err := os.Create(filepath.Join(dir, name+".log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	out.Whole = f
	return out
}

// tellOutput shows what a process wrote, or where that lies.
func (p *restartable) tellOutput(name string) {
	p.t.Helper()
	if f, ok := p.output.Whole.(*os.File); ok {
		p.t.Logf("what %s wrote: %s", name, f.Name())
		return
	}
	p.t.Logf("last output of %s:\n%s", name, p.output.String())
}

// Said is the end of what the process wrote.
func (p *restartable) Said() string { return p.output.String() }

// Launch starts the process and waits until it is ready.
func (p *restartable) Launch() {
	p.t.Helper()
	if err := p.TryLaunch(); err != nil {
		p.t.Fatal(err)
	}
}

// TryLaunch is Launch that returns the error, with the process's last output.
func (p *restartable) TryLaunch() error {
	running, err := process.Start(p.t.Context(), process.Config{
		Binary: p.binary, Args: append([]string{p.verb}, p.args()...), Output: p.output, Within: p.within,
	})
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running = running
	return nil
}

// Stop ends the process as Ctrl-C does and waits for its end.
func (p *restartable) Stop() { p.end(syscall.SIGINT) }

// Terminate ends the process as a service manager does and waits for its end.
func (p *restartable) Terminate() { p.end(syscall.SIGTERM) }

// Kill ends the process with SIGKILL and waits for its end.
func (p *restartable) Kill() { p.end(syscall.SIGKILL) }

// Wait waits until the process ends by itself, and returns its exit code.
func (p *restartable) Wait() int {
	p.t.Helper()
	p.mu.Lock()
	running := p.running
	p.mu.Unlock()
	if running == nil {
		p.t.Fatal("nothing runs")
	}
	code, err := running.Wait()
	if err != nil {
		p.t.Fatal(err)
	}
	p.mu.Lock()
	p.running = nil
	p.mu.Unlock()
	return code
}

func (p *restartable) end(sig syscall.Signal) {
	p.t.Helper()
	p.mu.Lock()
	running := p.running
	p.running = nil
	p.mu.Unlock()
	if running == nil {
		return
	}
	if err := running.End(sig); err != nil {
		p.t.Error(err)
	}
}

func checkNothingLeft(t testing.TB, list func() []string) {
	t.Helper()
	for _, l := range process.AwaitNothingLeft(list) {
		t.Errorf("left behind: %s", l)
	}
}
