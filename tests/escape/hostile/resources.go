//go:build linux

package main

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// resources take more than is the function's, and give it back.
func resources() map[string]attempt {
	counted := func(f func(n int) (int, error)) attempt {
		return func(a url.Values) (string, error) {
			n, err := strconv.Atoi(a.Get("n"))
			if err != nil {
				return "", err
			}
			got, err := f(n)
			return strconv.Itoa(got), err
		}
	}
	return map[string]attempt{
		"bomb":    counted(bomb),
		"spin":    counted(spin),
		"sockets": counted(sockets),
		"memory": func(a url.Values) (string, error) {
			// In a child: it is the one to be killed.
			err := exec.Command("/proc/self/exe", "eat", a.Get("n")).Run()
			var exit *exec.ExitError
			if errors.As(err, &exit) {
				if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signal() == syscall.SIGKILL {
					return "killed", unix.ENOMEM
				}
			}
			return "", err
		},
		"fill": func(a url.Values) (string, error) {
			n, err := strconv.Atoi(a.Get("n"))
			if err != nil {
				return "", err
			}
			return "", fill(a.Get("path"), n)
		},
		"inodes": func(a url.Values) (string, error) {
			n, err := strconv.Atoi(a.Get("n"))
			if err != nil {
				return "", err
			}
			got, err := inodes(a.Get("path"), n)
			return strconv.Itoa(got), err
		},
		"say": func(a url.Values) (string, error) {
			n, err := strconv.Atoi(a.Get("n"))
			if err != nil {
				return "", err
			}
			line := strings.Repeat("x", 1023) + "\n"
			for ; n > 0 && err == nil; n -= len(line) {
				_, err = os.Stdout.WriteString(line)
			}
			return "", err
		},
	}
}

// bomb has n processes at once, as far as it gets, and ends them.
func bomb(n int) (got int, err error) {
	var all []*exec.Cmd
	for ; got < n; got++ {
		cmd := exec.Command("/proc/self/exe", "sleep")
		if err = cmd.Start(); err != nil {
			break
		}
		all = append(all, cmd)
	}
	for _, cmd := range all {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	return got, err
}

func sockets(n int) (got int, err error) {
	var all []int
	for ; got < n; got++ {
		var fd int
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0); err != nil {
			break
		}
		all = append(all, fd)
	}
	for _, fd := range all {
		_ = unix.Close(fd)
	}
	return got, err
}

// spin computes on four threads until n milliseconds of a processor's time are used up, and returns how many went by on the clock.
func spin(n int) (int, error) {
	begun, most := time.Now(), time.Duration(n)*time.Millisecond
	before, err := used()
	if err != nil {
		return 0, err
	}
	var all errgroup.Group
	for range 4 {
		all.Go(func() error {
			for {
				if now, err := used(); err != nil || now-before >= most {
					return err
				}
			}
		})
	}
	err = all.Wait()
	return int(time.Since(begun).Milliseconds()), err
}

// used is the processors' time that this process has had.
func used() (time.Duration, error) {
	var ts unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts)
	return time.Duration(ts.Nano()), err
}

func eat(n int) {
	b := make([]byte, n)
	for i := 0; i < n; i += 4096 {
		b[i] = 1
	}
	fmt.Println(len(b))
}

func fill(path string, n int) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(path) }()
	block := make([]byte, 1<<20)
	for ; n > 0 && err == nil; n -= len(block) {
		_, err = f.Write(block)
	}
	return errors.Join(err, f.Close())
}

func inodes(dir string, n int) (got int, err error) {
	base := filepath.Join(dir, "inodes")
	if err := os.Mkdir(base, 0o755); err != nil {
		return 0, err
	}
	defer func() { _ = os.RemoveAll(base) }()
	for ; got < n; got++ {
		f, err := os.Create(filepath.Join(base, strconv.Itoa(got)))
		if err != nil {
			return got, err
		}
		f.Close()
	}
	return got, nil
}
