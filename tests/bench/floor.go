package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/tatami-faas/tatami/tests/process"
)

// floor starts a function with what the kernel offers and nothing else: a cgroup of the v2 tree that the process is cloned into, its own
// mount, pid, network, ipc and uts namespaces, an overlay for a root, a TCP port. No OCI runtime, no limits, no seccomp, no protocol.
type floor struct {
	dir, lower, cgroup string
	n                  atomic.Int64
}

func newFloor(function string) (*floor, error) {
	dir, err := os.MkdirTemp("/tmp", "ttfloor")
	if err != nil {
		return nil, err
	}
	f := &floor{dir: dir, lower: filepath.Join(dir, "lower")}
	if err := os.Mkdir(f.lower, 0o755); err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(function)
	if err != nil {
		return nil, err
	}
	if err := process.WriteProgram(filepath.Join(f.lower, "function"), raw, 0o755); err != nil {
		return nil, err
	}
	for _, tree := range []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
		var st unix.Statfs_t
		if unix.Statfs(tree, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
			f.cgroup = filepath.Join(tree, filepath.Base(dir))
			return f, os.Mkdir(f.cgroup, 0o755)
		}
	}
	return nil, errors.New("this machine has no cgroup v2 tree")
}

// start runs the function until its first answer, returns how long that took, and removes what it made.
func (f *floor) start(ctx context.Context) (time.Duration, error) {
	begun := time.Now()
	end, err := f.launch(ctx)
	took := time.Since(begun)
	return took, errors.Join(err, end())
}

// burst runs many functions at once until each has answered, and returns how long that took. As many start at the same time as the
// processors do best with.
func (f *floor) burst(ctx context.Context, n int) (time.Duration, error) {
	ends := make([]func() error, n)
	var all errgroup.Group
	all.SetLimit(2 * runtime.NumCPU())
	begun := time.Now()
	for i := range n {
		all.Go(func() (err error) {
			ends[i], err = f.launch(ctx)
			return err
		})
	}
	err := all.Wait()
	took := time.Since(begun)
	for _, end := range ends {
		err = errors.Join(err, end())
	}
	return took, err
}

// launch runs the function until its first answer. The function that it returns ends it and removes what was made, however far that came.
func (f *floor) launch(ctx context.Context) (end func() error, err error) {
	name := strconv.FormatInt(f.n.Add(1), 10)
	base, group := filepath.Join(f.dir, name), filepath.Join(f.cgroup, name)
	var undo []func() error
	end = func() (err error) {
		for _, u := range slices.Backward(undo) {
			err = errors.Join(err, u())
		}
		return err
	}
	if err := os.Mkdir(group, 0o755); err != nil {
		return end, err
	}
	undo = append(undo, func() error { return removeGroup(group) })
	dir, err := os.Open(group)
	if err != nil {
		return end, err
	}
	undo = append(undo, dir.Close)
	for _, d := range []string{base, base + "/upper", base + "/work", base + "/root"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return end, err
		}
	}
	undo = append(undo, func() error { return os.RemoveAll(base) })
	pid, err := f.spawn(base, dir)
	if err != nil {
		return end, err
	}
	undo = append(undo, func() error {
		_ = unix.Kill(pid, unix.SIGKILL)
		_, err := unix.Wait4(pid, nil, 0, nil)
		return err
	})
	return end, firstAnswer(ctx, pid)
}

// spawn makes the surroundings on a thread that ends afterwards, and starts the function from there.
func (f *floor) spawn(base string, group *os.File) (pid int, err error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with the goroutine.
		runtime.LockOSThread()
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS); err != nil {
				return err
			}
			if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
				return err
			}
			options := fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work", f.lower, base, base)
			if err := unix.Mount("overlay", base+"/root", "overlay", 0, options); err != nil {
				return err
			}
			if err := loopbackUp(); err != nil {
				return err
			}
			if err := unix.Chdir(base + "/root"); err != nil {
				return err
			}
			if err := unix.PivotRoot(".", "."); err != nil {
				return err
			}
			if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
				return err
			}
			var err error
			pid, err = syscall.ForkExec("/function", []string{"/function"}, &syscall.ProcAttr{
				Dir: "/", Env: []string{"PORT=8080"},
				Files: []uintptr{null.Fd(), null.Fd(), null.Fd()},
				Sys:   &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID, UseCgroupFD: true, CgroupFD: int(group.Fd())},
			})
			return err
		}()
	}()
	return pid, <-done
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP)
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCSIFFLAGS, uintptr(unsafe.Pointer(request)))
	if e != 0 {
		return e
	}
	return nil
}

// removeGroup waits until the killed process is out of it.
func removeGroup(dir string) (err error) {
	for begun := time.Now(); time.Since(begun) < time.Minute; time.Sleep(time.Millisecond) {
		if err = unix.Rmdir(dir); !errors.Is(err, unix.EBUSY) {
			return err
		}
	}
	return err
}

func (f *floor) close() error { return errors.Join(unix.Rmdir(f.cgroup), os.RemoveAll(f.dir)) }

// buildHello builds the example hello and returns the path of the static binary in dir.
func buildHello(ctx context.Context, dir string) (string, error) {
	out := filepath.Join(dir, "hello")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", out, ".")
	cmd.Dir, cmd.Env = filepath.Join("functions", "examples", "hello"), append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building hello: %w\n%s", err, text)
	}
	return out, nil
}
