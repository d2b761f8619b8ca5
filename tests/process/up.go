package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
)

// Up is one `tatami up` on a directory of its own, for programs; tests have harness.Server.
type Up struct {
	*Process
	// Dir holds all that it writes but for what is in RunDir, which is on a tmpfs, as /run is on nearly every machine.
	Dir, RunDir string
	// Public is the address of its public listener.
	Public string

	binary string
}

// StartUp runs the binary with a public address in a new directory below /tmp whose name begins so, and waits until it is ready. Its log
// is in the directory.
func StartUp(ctx context.Context, binary, name, public string, flags ...string) (*Up, error) {
	// Short, for the sockets in it.
	dir, err := os.MkdirTemp("/tmp", name)
	if err != nil {
		return nil, err
	}
	u := &Up{Dir: dir, RunDir: filepath.Join(memory(dir), filepath.Base(dir)), Public: public, binary: binary}
	log, err := os.Create(filepath.Join(dir, "tatami.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	u.Process, err = Start(ctx, Config{Binary: binary, Log: log, Args: append([]string{
		"up", "--data-dir", filepath.Join(dir, "data"), "--run-dir", u.RunDir, "--public-addr", public, "--node-name", filepath.Base(dir),
	}, flags...)})
	return u, err
}

// Stop ends it as Ctrl-C does and removes its directory. What is left of it on the machine is an error.
func (u *Up) Stop() error {
	if err := u.End(syscall.SIGINT); err != nil {
		return err
	}
	cgroup := func(name string) bool { return name == "tatami-"+filepath.Base(u.Dir) }
	left := AwaitNothingLeft(func() []string {
		return append(Leftovers(u.Dir, "", cgroup), Leftovers(u.RunDir, "", cgroup)...)
	})
	if len(left) > 0 {
		return fmt.Errorf("left behind:\n%s", strings.Join(left, "\n"))
	}
	return errors.Join(os.RemoveAll(u.RunDir), os.RemoveAll(u.Dir))
}

// memory is a directory on a tmpfs that programs may be started from; other where there is none.
func memory(other string) string {
	const shared = "/dev/shm"
	var st unix.Statfs_t
	if err := unix.Statfs(shared, &st); err != nil || st.Type != unix.TMPFS_MAGIC || st.Flags&unix.ST_NOEXEC != 0 {
		return other
	}
	return shared
}

// CLI runs a client verb against it and returns its standard output.
func (u *Up) CLI(ctx context.Context, args ...string) (string, error) {
	r, err := CLI(ctx, u.binary, u.RunDir, "", args...)
	if err == nil && r.Exit != 0 {
		err = fmt.Errorf("tatami %s ended with %d\n%s", strings.Join(args, " "), r.Exit, r.Stderr)
	}
	return r.Stdout, err
}

// Instances lists the instances of a function in any state but gone.
func (u *Up) Instances(ctx context.Context, function string) ([]v1.Instance, error) {
	out, err := u.CLI(ctx, "inst", "ls", "-o", "json")
	if err != nil {
		return nil, err
	}
	var all, of []v1.Instance
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		return nil, fmt.Errorf("tatami inst ls -o json: %w", err)
	}
	for _, i := range all {
		if i.Function == function && !i.State.Gone() {
			of = append(of, i)
		}
	}
	return of, nil
}

// AwaitZero waits until no instance of the function exists in any state, for a minute at most.
func (u *Up) AwaitZero(ctx context.Context, function string) error {
	for begun := time.Now(); ; {
		of, err := u.Instances(ctx, function)
		if err != nil || len(of) == 0 {
			return err
		}
		if time.Since(begun) > time.Minute {
			return fmt.Errorf("%d instances of %s are still there after a minute", len(of), function)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}
