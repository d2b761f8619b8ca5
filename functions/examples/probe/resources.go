package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

func (p *probe) spin(w http.ResponseWriter, r *http.Request) {
	note(r)
	n := uint64(1)
	for range number(r, "steps", 0) {
		n = n*6364136223846793005 + 1442695040888963407
	}
	// The time counts where no number of steps is asked for.
	over := 100
	if n != 1 {
		over = 0
	}
	end := time.Now().Add(time.Duration(number(r, "ms", over)) * time.Millisecond)
	for time.Now().Before(end) {
		for range 10_000 {
			n = n*6364136223846793005 + 1442695040888963407
		}
	}
	fmt.Fprintln(w, n)
}

// oom takes memory and touches every page of it.
func (p *probe) oom(w http.ResponseWriter, r *http.Request) {
	const mib = 1 << 20
	want := number(r, "mb", 1<<20)
	held := make([][]byte, 0, 1024)
	for len(held) < want {
		b := make([]byte, mib)
		for i := 0; i < len(b); i += 4096 {
			b[i] = byte(i>>12) | 1
		}
		held = append(held, b)
	}
	fmt.Fprintf(w, "%d MiB held\n", len(held))
	runtime.KeepAlive(held)
}

func (p *probe) write(w http.ResponseWriter, r *http.Request) {
	dir := r.URL.Query().Get("dir")
	if dir == "" {
		dir = "/tmp"
	}
	f, err := os.Create(filepath.Join(dir, fmt.Sprintf("probe-%d", time.Now().UnixNano())))
	if err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	defer f.Close()
	if r.URL.Query().Get("keep") == "" {
		defer os.Remove(f.Name())
	}
	block := make([]byte, 1<<20)
	for i := range number(r, "mb", 1) {
		if _, err := f.Write(block); err != nil {
			code := http.StatusInternalServerError
			if errors.Is(err, syscall.ENOSPC) {
				code = http.StatusInsufficientStorage
			}
			http.Error(w, fmt.Sprintf("after %d MiB: %v", i, err), code)
			return
		}
	}
	fmt.Fprintln(w, "written")
}

// fork starts copies of the process, which sleep. At the limit either the start fails and the answer says so, or the Go runtime itself
// ends the process because it gets no thread.
func (p *probe) fork(w http.ResponseWriter, r *http.Request) {
	self, err := os.Executable()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	started := 0
	for ; started < number(r, "max", 1<<20); started++ {
		c := exec.Command(self)
		c.Env = append(os.Environ(), childEnv+"=1")
		c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := c.Start(); err != nil {
			reply(w, http.StatusOK, map[string]any{"started": started, "error": err.Error()})
			return
		}
		p.children.Add(1)
		go func() {
			_ = c.Wait()
			p.children.Add(-1)
		}()
	}
	reply(w, http.StatusOK, map[string]any{"started": started})
}
