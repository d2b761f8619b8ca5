//go:build linux

// Package examples holds functions that the demo, the tests and the benchmarks deploy; each directory is a module of its own.
package examples

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/klauspost/compress/gzip"

	"github.com/tatami-faas/tatami/functions/build"
	"github.com/tatami-faas/tatami/functions/spec"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/tests/process"
)

// binary deploys an example as a user would, as far as the image, and takes the program out of it again.
func binary(t *testing.T, name string) string {
	t.Helper()
	file, err := spec.Read(name)
	if err != nil {
		t.Fatal(err, fault.From(err).Details)
	}
	if file.Name != name {
		t.Errorf("%s calls itself %s", name, file.Name)
	}
	image, err := build.Build(t.Context(), build.Request{File: file, Options: build.Options{Architecture: runtime.GOARCH}})
	if err != nil {
		t.Fatal(err, fault.From(err).Details)
	}
	defer image.Close()
	r, err := image.Blobs[1].Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	z, err := gzip.NewReader(r)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	for in := tar.NewReader(z); ; {
		h, err := in.Next()
		if err != nil {
			t.Fatal("no program in the image: ", err)
		}
		if h.Name != "function" {
			continue
		}
		body, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		if err := process.WriteProgram(path, body, 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
}

// running is an example that runs on this machine.
type running struct {
	t    *testing.T
	cmd  *exec.Cmd
	url  string
	logs string
	done chan error
}

// start runs a program and waits until it listens, unless it ends before.
func start(t *testing.T, program string, env ...string) *running {
	t.Helper()
	addr, err := process.FreeAddr("")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	r := &running{t: t, cmd: exec.Command(program), url: "http://" + addr, done: make(chan error, 1)}
	r.cmd.Env = append([]string{"PORT=" + port}, env...)
	r.logs = filepath.Join(t.TempDir(), "logs")
	logs, err := os.Create(r.logs)
	if err != nil {
		t.Fatal(err)
	}
	defer logs.Close()
	r.cmd.Stdout, r.cmd.Stderr = logs, logs
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { r.done <- r.cmd.Wait() }()
	t.Cleanup(func() { _ = syscall.Kill(-r.cmd.Process.Pid, syscall.SIGKILL) })
	for {
		select {
		case err := <-r.done:
			r.done <- err
			return r
		case <-t.Context().Done():
			t.Fatal("never ready")
		case <-time.After(5 * time.Millisecond):
		}
		if c, err := net.Dial("tcp", "127.0.0.1:"+port); err == nil {
			_ = c.Close()
			return r
		}
	}
}

func (r *running) do(method, path string, body io.Reader, header ...string) (*http.Response, string, error) {
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.url+path, body)
	if err != nil {
		r.t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp, string(b), err
}

func (r *running) output() string {
	r.t.Helper()
	b, err := os.ReadFile(r.logs)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(b)
}

func (r *running) get(path string) string {
	r.t.Helper()
	resp, body, err := r.do(http.MethodGet, path, nil)
	if err != nil || resp.StatusCode != http.StatusOK {
		r.t.Fatalf("%s: %v %s %v", path, resp, body, err)
	}
	return body
}

// exit waits for the end and returns the exit code.
func (r *running) exit() int {
	r.t.Helper()
	select {
	case err := <-r.done:
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return exit.ExitCode()
		}
		return 0
	case <-time.After(30 * time.Second):
		r.t.Fatal("it does not end")
		return -1
	}
}

func TestHello(t *testing.T) {
	t.Parallel()
	h := start(t, binary(t, "hello"))
	_, body, err := h.do(http.MethodPost, "/any/path?name=you", strings.NewReader("posted"), "Tatami-Invocation-Id", "inv_x")
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Message, Name, Invocation, Body string
		Time                            time.Time
		PID                             int
	}
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	if got.Message != "Hello, you!" || got.Invocation != "inv_x" || got.Body != "posted" || got.PID != h.cmd.Process.Pid || time.Since(got.Time) > time.Minute {
		t.Errorf("got %s", body)
	}
	if err := h.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := h.exit(); code != 0 {
		t.Errorf("exit code %d\n%s", code, h.output())
	}
}

func TestProbe(t *testing.T) {
	t.Parallel()
	program := binary(t, "probe")
	t.Run("answers", func(t *testing.T) {
		t.Parallel()
		p := start(t, program)
		_, body, err := p.do(http.MethodPut, "/some/path?q=1", strings.NewReader("hi"), "X-A", "b")
		if err != nil || !strings.Contains(body, `"method":"PUT"`) || !strings.Contains(body, `"X-A":["b"]`) || !strings.Contains(body, `"uri":"/some/path?q=1"`) || !strings.Contains(body, `"body":"hi"`) {
			t.Errorf("%s %v", body, err)
		}
		if resp, _, err := p.do(http.MethodGet, "/status?code=418", nil); err != nil || resp.StatusCode != 418 {
			t.Errorf("%v %v", resp, err)
		}
		if _, body, err := p.do(http.MethodPost, "/upload", strings.NewReader(strings.Repeat("x", 3<<20))); err != nil || !strings.Contains(body, `"bytes":3145728`) {
			t.Errorf("%s %v", body, err)
		}
		if _, body, err := p.do(http.MethodPost, "/cat", strings.NewReader("meow")); err != nil || body != "meow" {
			t.Errorf("%s %v", body, err)
		}
		if resp, _, err := p.do(http.MethodPost, "/trailers", strings.NewReader("12345")); err != nil || resp.Trailer.Get("Probe-Bytes") != "5" || resp.Trailer.Get("Probe-End") != "yes" {
			t.Errorf("%v %v", resp, err)
		}
		if body := p.get("/stream?n=3&ms=1"); strings.Count(body, "data: ") != 3 {
			t.Error(body)
		}
		if n := len(p.get("/download?mb=2")); n != 2<<20 {
			t.Error(n)
		}
		for _, mode := range []string{"short", "garbage", "reset", "header"} {
			if _, _, err := p.do(http.MethodGet, "/broken?mode="+mode, nil); err == nil {
				t.Errorf("/broken?mode=%s is a good answer", mode)
			}
		}
		if body := p.get("/whoami"); !strings.Contains(body, `"namespaces"`) || !strings.Contains(body, `"CapEff"`) {
			t.Error(body)
		}
		if body := p.get("/env"); !strings.Contains(body, `"PORT"`) {
			t.Error(body)
		}
		if body := p.get("/oom?mb=8"); !strings.Contains(body, "8 MiB") {
			t.Error(body)
		}
		if body := p.get("/write?mb=1&dir=" + t.TempDir()); body != "written\n" {
			t.Error(body)
		}
		p.get("/spin?ms=1")
		if body := p.get("/fork?max=2"); !strings.Contains(body, `"started":2`) {
			t.Error(body)
		}
		if body := p.get("/count"); !strings.Contains(body, `"children":2`) || !strings.Contains(body, `"active":1`) {
			t.Error(body)
		}
		p.get("/log?lines=2&text=here")
		if logs := p.output(); !strings.Contains(logs, "line 2 here\n") {
			t.Error(logs)
		}
	})
	t.Run("websocket", func(t *testing.T) {
		t.Parallel()
		p := start(t, program)
		conn, _, err := websocket.Dial(t.Context(), p.url+"/ws", nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, size := range []int{0, 5, 200, 20_000} {
			sent := bytes.Repeat([]byte("w"), size)
			if err := conn.Write(t.Context(), websocket.MessageBinary, sent); err != nil {
				t.Fatal(err)
			}
			if _, got, err := conn.Read(t.Context()); err != nil || !bytes.Equal(got, sent) {
				t.Errorf("%d bytes: got %d, %v", size, len(got), err)
			}
		}
		if err := conn.Close(websocket.StatusNormalClosure, "bye"); err != nil {
			t.Error(err)
		}
	})
	t.Run("a caller that vanishes", func(t *testing.T) {
		t.Parallel()
		p := start(t, program)
		for _, path := range []string{"/sleep?ms=60000", "/endless", "/stream?n=100000&ms=1"} {
			before := vanished(p)
			ctx, cancel := context.WithCancel(t.Context())
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if path == "/sleep?ms=60000" {
				go func() {
					for p.active() < 2 { // this request and the one that asks
						time.Sleep(time.Millisecond)
					}
					cancel()
				}()
			}
			if resp, err := http.DefaultClient.Do(req); err == nil {
				_, _ = bufio.NewReader(resp.Body).ReadByte()
				cancel()
				_ = resp.Body.Close()
			}
			cancel()
			for vanished(p) == before {
				if t.Context().Err() != nil {
					t.Fatal("not noticed: ", path)
				}
				time.Sleep(time.Millisecond)
			}
		}
	})
	for _, c := range []struct {
		path string
		code int
	}{{"/crash", 1}, {"/exit0", 0}, {"/panic", 2}} {
		t.Run(c.path, func(t *testing.T) {
			t.Parallel()
			p := start(t, program)
			if _, _, err := p.do(http.MethodGet, c.path, nil); err == nil {
				t.Error("it answered")
			}
			if code := p.exit(); code != c.code {
				t.Errorf("exit code %d", code)
			}
		})
	}
	t.Run("starts", func(t *testing.T) {
		t.Parallel()
		if code := start(t, program, "PROBE_START=exit").exit(); code != 3 {
			t.Errorf("exit code %d", code)
		}
		began := time.Now()
		start(t, program, "PROBE_START=listen-late:300ms")
		if took := time.Since(began); took < 300*time.Millisecond {
			t.Errorf("listened after %s", took)
		}
		p := start(t, program, "PROBE_START=crash-each,unready:1h")
		if resp, _, err := p.do(http.MethodGet, "/ready", nil); err != nil || resp.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("%v %v", resp, err)
		}
		if _, _, err := p.do(http.MethodGet, "/echo", nil); err == nil {
			t.Error("it answered")
		}
		if code := p.exit(); code != 1 {
			t.Errorf("exit code %d", code)
		}
		stubborn := start(t, program, "PROBE_START=ignore-sigterm")
		if err := stubborn.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		stubborn.get("/spin?ms=50")
		stubborn.get("/ready")
	})
}

func (r *running) counters() map[string]int64 {
	r.t.Helper()
	out := map[string]int64{}
	_, body, err := r.do(http.MethodGet, "/count", nil)
	if err != nil {
		return out
	}
	_ = json.Unmarshal([]byte(body), &out)
	return out
}

func (r *running) active() int64 { return r.counters()["active"] }

func vanished(r *running) int64 { return r.counters()["vanished"] }
