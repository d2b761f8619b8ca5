//go:build linux

package containerd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/containerd/containerd/v2/core/sandbox"
	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/errdefs"
)

const (
	// shimGroup names a record in containerd that says of a container: its shim is found at the address given with the task. So containerd
	// starts none: its way takes two more runs of a program, one after the other, where ours takes one, beside other work.
	shimGroup = "tatami-shims"
	// shimVersion is the task API's that the shim speaks.
	shimVersion = 3
	// envShim tells a shim that we started it: containerd reads no log of its own from it.
	envShim = "TATAMI_SHIM"
)

// shimSocket is where the sandbox's shim listens.
func (c Config) shimSocket(id string) string { return filepath.Join(c.shimSockets(), id) }

// shimAddress is the same in the form in which a task is told it.
func (c Config) shimAddress(id string) string { return "ttrpc+unix://" + c.shimSocket(id) }

// groupShims makes the record.
func (d *Driver) groupShims(ctx context.Context) error {
	_, err := d.client.SandboxStore().Create(ctx, sandbox.Sandbox{ID: shimGroup, Runtime: sandbox.RuntimeOpts{Name: d.runtime()}})
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return fmt.Errorf("record our shims: %w", err)
	}
	return nil
}

// startShim starts the sandbox's shim, which outlives this process, and returns its number. It can be connected to at once: it inherits a socket
// that listens. Where low says so, it and what it starts give way to functions until it comes back.
func (d *Driver) startShim(id string, low bool) (int, error) {
	path := d.cfg.shimSocket(id)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return 0, err
	}
	defer l.Close()
	l.SetUnlinkOnClose(false)
	if err := os.Chmod(path, 0o600); err != nil {
		return 0, err
	}
	socket, err := l.File()
	if err != nil {
		return 0, err
	}
	defer socket.Close()

	cmd := exec.Command(d.cfg.shimBinary(), shimFirstFlag, namespace, "-id", id, "-address", d.cfg.engineSocket())
	cmd.Dir = d.cfg.RunDir
	cmd.Env = append(shimEnv(os.Environ()), envShim+"=1", "GOMAXPROCS=2", "TTRPC_ADDRESS="+d.cfg.engineSocket()+".ttrpc")
	cmd.ExtraFiles = []*os.File{socket}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if low {
		aside, err := d.cgroup.openAside()
		if err != nil {
			return 0, err
		}
		if aside != nil {
			defer aside.Close()
			cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(aside.Fd())
		}
	}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("start the shim: %w", err)
	}
	// Only to take its exit status when it ends, which may be long after Close: nobody waits for this.
	go func() { _ = cmd.Wait() }()
	if err := shim.AdjustOOMScore(cmd.Process.Pid); err != nil && !errors.Is(err, os.ErrNotExist) {
		d.log.Debug("the shim's OOM score is not adjusted", "inst", id, "err", err)
	}
	if low {
		return cmd.Process.Pid, d.cgroup.stepAside(cmd.Process.Pid)
	}
	return cmd.Process.Pid, nil
}

// shimEnv leaves out what is ours: tokens, and what the service manager gave to this process.
func shimEnv(env []string) []string {
	var out []string
	for _, e := range env {
		name, _, _ := strings.Cut(e, "=")
		switch {
		case strings.HasPrefix(name, "TATAMI_"), name == "NOTIFY_SOCKET", strings.HasPrefix(name, "LISTEN_"), name == "WATCHDOG_PID", name == "GOMAXPROCS":
		default:
			out = append(out, e)
		}
	}
	return out
}
