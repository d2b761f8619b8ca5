//go:build linux

package containerd

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/runtime/attach"
)

// gvisorPIDs are the processes and threads that gVisor itself takes of a sandbox's cgroup, besides those that stand for the function's.
const gvisorPIDs = 256

// gvisorWhy is why a sandbox of gVisor's is made by its runtime at the start.
const gvisorWhy = "gVisor makes its sandboxes itself"

// Why a node has no gVisor.
const (
	gvisorOff  = "this node is not to run it (--gvisor=false)"
	gvisorAway = "runsc is not installed"
)

// runscScript calls runsc for the shim, which hands it no flags of ours. With the network of its namespace the function is reached like any other.
// The runtime gives what it finds as its input to nobody: that must not be the machine's /dev/null. Of a process that it starts with exec it tells
// which one it is in the sandbox, in a file named after the container, which is the last word, and the shim's own file.
const runscScript = `#!/bin/sh
[ "$(readlink /proc/$$/fd/0)" != /dev/null ] || exec <%q
before= file=
for word; do
	[ "$before" != --pid-file ] || file=${word##*/}
	before=$word
done
for word; do
	shift
	set -- "$@" "$word"
	[ "$word" != exec ] || set -- "$@" --internal-pid-file %q"/$before.$file"
done
exec %q --network=host "$@"
`

// gvisor turns the plan into one for a sandbox whose system calls are answered by gVisor's kernel instead of the node's.
func (d *Driver) gvisor(p *plan) error {
	const asks = "the function asks for 'sandbox: gvisor', and "
	if !d.cfg.GVisor {
		return fault.New(fault.CodeUnavailable, asks+gvisorOff).WithHint("start the node without --gvisor=false, or take 'sandbox' out of tatami.yaml")
	}
	program, err := FindProgram("runsc")
	if err != nil {
		return fault.Wrap(fault.CodeUnavailable, err, asks+gvisorAway+" on this node").
			WithHint("apt-get install runsc, or take 'sandbox' out of tatami.yaml")
	}
	script := fmt.Sprintf(runscScript, d.cfg.noInput(), d.cfg.guests(), program)
	for file, content := range map[string]string{d.cfg.noInput(): "", d.cfg.runscScript(): script} {
		if err := replaceFile(file, []byte(content), 0o700); err != nil {
			return err
		}
	}
	p.labels[labelGVisor] = "yes"
	p.runtime, p.runtimeRoot = d.cfg.runscScript(), d.cfg.runscRoot()
	if limit := p.spec.Linux.Resources.Pids; limit != nil {
		more := *limit.Limit + gvisorPIDs
		limit.Limit = &more
	}
	// It knows neither; its own kernel lets every user serve on every port.
	p.spec.Linux.Sysctl = nil
	p.spec.Linux.Seccomp = nil
	return nil
}

// Lacks are the features that this node does not have now, each with the reason and, where one is known, with the remedy.
func (d *Driver) Lacks() map[functions.Feature]string {
	lacks := map[functions.Feature]string{}
	if !d.cfg.GVisor {
		lacks[functions.FeatureGVisor] = gvisorOff
	} else if _, err := FindProgram("runsc"); err != nil {
		lacks[functions.FeatureGVisor] = gvisorAway
	}
	if err := d.egress.Obstacle(); err != nil {
		reason := err.Error()
		if f := fault.From(err); f != nil && f.Hint != "" {
			reason += "; " + f.Hint
		}
		lacks[functions.FeatureEgress] = reason
	}
	return lacks
}

// guest is where runsc wrote which process of the sandbox Exec began; runsc's own records of a container begin like it.
func (b *box) guest(execID string) string {
	return filepath.Join(b.d.cfg.guests(), b.sid+"."+execID+".pid")
}

func (b *box) forgetGuest(execID string) { _ = os.Remove(b.guest(execID)) }

// killGuest ends a process that Exec began. The shim cannot: what it knows is the process on the node that waits for the one in the sandbox, and with
// that only the waiting ends.
func (b *box) killGuest(ctx context.Context, execID string) error {
	pid, err := os.ReadFile(b.guest(execID))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, killTime)
	defer cancel()
	out, err := exec.CommandContext(ctx, b.d.cfg.runscScript(), "--root", b.d.cfg.guests(), "kill", "--pid", string(pid), b.sid, "KILL").CombinedOutput()
	if err != nil {
		b.d.log.Warn("a process that was begun in a sandbox of gVisor's goes on", "inst", b.info.ID, "err", err, "out", string(out))
	}
	return err
}

// forgetGVisor removes what gVisor's runtime recorded of a sandbox, which a crash may leave.
func (d *Driver) forgetGVisor(id string) error {
	records, err := filepath.Glob(filepath.Join(d.cfg.guests(), id+"*"))
	if err != nil {
		return err
	}
	for _, r := range records {
		if err := os.RemoveAll(r); err != nil {
			return err
		}
	}
	return nil
}

// replaceFile writes a file whole or not at all.
func replaceFile(path string, content []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	// What a process that begins meanwhile has open for writing, too, cannot be run until that runs a program itself.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	f, err := os.CreateTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Chmod(f.Name(), mode)
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// wake readies the network namespace that gVisor leaves as the kernel makes it: the loopback device is up, and every port may be served on.
func wake(netns *os.File) error {
	return attach.InNetwork(netns, func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		defer unix.Close(fd)
		lo, err := unix.NewIfreq("lo")
		if err != nil {
			return err
		}
		lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
		if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
			return fmt.Errorf("switch the loopback device on: %w", err)
		}
		return os.WriteFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", []byte("0"), 0)
	})
}
