//go:build linux

package main

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// files are the ways to what lies outside of the root, and the watch over whoever enters the sandbox.
func files() map[string]attempt {
	w := &watcher{}
	return map[string]attempt{
		"read": func(a url.Values) (string, error) {
			b, err := os.ReadFile(a.Get("path"))
			return string(b[:min(len(b), 64<<10)]), err
		},
		// Nothing is written: to open it for that is all that matters.
		"write": func(a url.Values) (string, error) {
			fd, err := unix.Open(a.Get("path"), unix.O_WRONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return "", err
			}
			return "", unix.Close(fd)
		},
		"put": func(a url.Values) (string, error) {
			return "", os.WriteFile(a.Get("path"), []byte(a.Get("text")), 0o600)
		},
		"descriptors": func(url.Values) (string, error) { return descriptors("/proc/self") },
		"link-out": func(a url.Values) (string, error) {
			// A link of our own that leads to the node's file, if names were resolved there.
			link := "/tmp/link-out"
			_ = os.Remove(link)
			if err := os.Symlink(a.Get("path"), link); err != nil {
				return "", err
			}
			b, err := os.ReadFile(link)
			return string(b[:min(len(b), 64<<10)]), err
		},
		"watch-begin": func(url.Values) (string, error) { w.begin(); return "", nil },
		"watch-end":   func(url.Values) (string, error) { return w.end(), nil },
	}
}

// descriptors lists where all open files of the process lead.
func descriptors(dir string) (string, error) {
	entries, err := os.ReadDir(dir + "/fd")
	if err != nil {
		return "", err
	}
	var out []string
	for _, e := range entries {
		if to, err := os.Readlink(dir + "/fd/" + e.Name()); err == nil {
			out = append(out, to)
		}
	}
	return strings.Join(out, "\n"), nil
}

// watcher waits for processes that enter the sandbox from outside, and takes of them what it can get before they are the function's.
type watcher struct {
	stop chan struct{}
	done sync.WaitGroup

	got  map[string]bool
	pids map[string]bool
}

func (w *watcher) begin() {
	w.stop, w.got, w.pids = make(chan struct{}), map[string]bool{}, map[string]bool{}
	w.done.Go(func() {
		for {
			select {
			case <-w.stop:
				return
			default:
				w.look()
			}
		}
	})
}

// end says how many processes came and what was got of them.
func (w *watcher) end() string {
	close(w.stop)
	w.done.Wait()
	lines := []string{fmt.Sprintf("processes %d", len(w.pids))}
	for g := range w.got {
		lines = append(lines, g)
	}
	return strings.Join(lines, "\n")
}

func (w *watcher) look() {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return
	}
	for _, d := range dirs {
		if d == "/proc/1" {
			continue
		}
		w.pids[d] = true
		if fd, err := unix.Open(d+"/exe", unix.O_WRONLY|unix.O_CLOEXEC, 0); err == nil {
			w.got["writes exe"] = true
			_ = unix.Close(fd)
		}
		for _, link := range []string{"exe", "cwd", "root"} {
			if to, err := os.Readlink(d + "/" + link); err == nil {
				w.got[link+" "+to] = true
			}
		}
		if fds, err := descriptors(d); err == nil {
			for fd := range strings.SplitSeq(fds, "\n") {
				w.got["fd "+fd] = true
			}
		}
	}
}
