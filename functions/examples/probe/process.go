package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

func (p *probe) ready(w http.ResponseWriter, _ *http.Request) {
	if wait, ok := p.start["unready"]; ok && time.Since(p.began) < wait {
		http.Error(w, "not yet", http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ready")
}

func (p *probe) count(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, map[string]int64{
		"requests": p.requests.Load(), "active": p.active.Load(), "peak": p.peak.Load(), "vanished": p.vanished.Load(),
		"children": p.children.Load(), "pid": int64(os.Getpid()),
	})
}

func (p *probe) env(w http.ResponseWriter, _ *http.Request) {
	out := map[string]string{}
	for _, pair := range os.Environ() {
		k, v, _ := strings.Cut(pair, "=")
		out[k] = v
	}
	reply(w, http.StatusOK, out)
}

func (p *probe) whoami(w http.ResponseWriter, _ *http.Request) {
	hostname, _ := os.Hostname()
	cwd, _ := os.Getwd()
	groups, _ := os.Getgroups()
	status := map[string]string{}
	if b, err := os.ReadFile("/proc/self/status"); err == nil {
		for _, line := range strings.Split(string(b), "\n") {
			k, v, _ := strings.Cut(line, ":")
			switch k {
			case "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Threads":
				status[k] = strings.TrimSpace(v)
			}
		}
	}
	namespaces := map[string]string{}
	for _, name := range []string{"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"} {
		namespaces[name], _ = os.Readlink("/proc/self/ns/" + name)
	}
	names := []string{}
	if interfaces, err := net.Interfaces(); err == nil {
		for _, i := range interfaces {
			names = append(names, i.Name)
		}
	}
	reply(w, http.StatusOK, map[string]any{
		"uid": os.Getuid(), "gid": os.Getgid(), "groups": groups, "pid": os.Getpid(), "ppid": os.Getppid(), "hostname": hostname, "cwd": cwd,
		"args": os.Args, "status": status, "namespaces": namespaces, "interfaces": names,
	})
}

// file looks at the file system as the function sees it.
func (p *probe) file(w http.ResponseWriter, r *http.Request) {
	path := filepath.Clean(r.URL.Query().Get("path"))
	refuse := func(err error) {
		code := http.StatusForbidden
		if errors.Is(err, os.ErrNotExist) {
			code = http.StatusNotFound
		}
		http.Error(w, err.Error(), code)
	}
	switch r.Method {
	case http.MethodPut:
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = os.WriteFile(path, body, 0o644)
		}
		if err != nil {
			refuse(err)
		}
	case http.MethodDelete:
		if err := os.Remove(path); err != nil {
			refuse(err)
		}
	default:
		if entries, err := os.ReadDir(path); err == nil {
			for _, e := range entries {
				fmt.Fprintln(w, e.Name())
			}
			return
		}
		body, err := os.ReadFile(path)
		if err != nil {
			refuse(err)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		_, _ = w.Write(body)
	}
}

func (p *probe) dial(w http.ResponseWriter, r *http.Request) {
	conn, err := net.DialTimeout("tcp", r.URL.Query().Get("addr"), time.Duration(number(r, "ms", 2000))*time.Millisecond)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	_ = conn.Close()
	fmt.Fprintln(w, "connected")
}

// effect tells the store which attempt of which invocation this is, and when it began. One whose caller has gone meanwhile tells nothing, unless it is
// told to take its time.
func (p *probe) effect(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	q := r.URL.Query()
	attempt := r.Header.Get("Tatami-Attempt")
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if after := number(r, "after", 0); after > 0 {
		time.Sleep(time.Duration(after) * time.Millisecond)
	} else {
		select {
		case <-time.After(time.Millisecond):
		case <-r.Context().Done():
			return
		}
	}
	target := url.URL{Scheme: "http", Host: q.Get("store"), Path: "/" + q.Get("how"), RawQuery: url.Values{
		"id": {r.Header.Get("Tatami-Invocation-Id")}, "attempt": {attempt}, "began": {strconv.FormatInt(began.UnixNano(), 10)},
	}.Encode()}
	resp, err := http.Post(target.String(), "text/plain", bytes.NewReader(body))
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	_ = resp.Body.Close()
	if fail := q.Get("fail"); fail == "always" || fail == "first" && attempt == "1" {
		http.Error(w, "as asked", http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, resp.StatusCode)
}

func (p *probe) log(w http.ResponseWriter, r *http.Request) {
	to := os.Stdout
	if r.URL.Query().Get("to") == "stderr" {
		to = os.Stderr
	}
	fill := strings.Repeat("x", max(number(r, "bytes", 0), 0))
	lines := number(r, "lines", 1)
	for i := range lines {
		if _, err := fmt.Fprintf(to, "line %d %s%s\n", i+1, r.URL.Query().Get("text"), fill); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
	}
	fmt.Fprintln(w, lines)
}

func (p *probe) endlessLog(w http.ResponseWriter, _ *http.Request) {
	go func() {
		line := []byte(strings.Repeat("log without end ", 16) + "\n")
		for {
			if _, err := os.Stdout.Write(line); err != nil {
				log.Print(err)
				return
			}
		}
	}()
	fmt.Fprintln(w, "from now on")
}
