package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// server is a `tatami up` on directories of its own.
type server struct {
	binary, dir       string
	public, dashboard string
	node              string
	cmd               *exec.Cmd
	ended             chan error
	log               *os.File
}

func startServer(ctx context.Context, binary string) (*server, error) {
	dir, err := os.MkdirTemp("/tmp", "tatami-demo")
	if err != nil {
		return nil, err
	}
	s := &server{binary: binary, dir: dir, public: addr("127.0.0.1:8080"), ended: make(chan error, 1), node: filepath.Base(dir)}
	if s.log, err = os.Create(filepath.Join(dir, "tatami.log")); err != nil {
		return nil, err
	}
	s.cmd = exec.Command(binary, "up", "--data-dir", filepath.Join(dir, "data"), "--run-dir", filepath.Join(dir, "run"),
		"--public-addr", s.public, "--control-addr", addr("127.0.0.1:8081"), "--node-name", s.node, "--log-format", "text")
	// Ctrl-C reaches this program, which then ends the server in order.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	s.cmd.Stderr = s.log
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	ready := make(chan struct{})
	go s.watch(bufio.NewScanner(out), ready)
	select {
	case <-ready:
		return s, nil
	case err := <-s.ended:
		s.ended <- err
		return nil, fmt.Errorf("tatami up did not start: %w\n%s", err, s.logTail())
	case <-ctx.Done():
		_ = s.stop()
		return nil, ctx.Err()
	}
}

// watch reads the server's output until it ends; ready is closed when the server says so.
func (s *server) watch(sc *bufio.Scanner, ready chan<- struct{}) {
	for sc.Scan() {
		line := sc.Text()
		if f := strings.Fields(line); len(f) == 2 && f[0] == "dashboard" {
			s.dashboard = f[1]
		}
		if strings.HasPrefix(line, "ready") {
			close(ready)
			for sc.Scan() {
				continue
			}
		}
	}
	s.ended <- s.cmd.Wait()
}

// addr returns the preferred address if it is free, else one that is.
func addr(preferred string) string {
	for _, a := range []string{preferred, "127.0.0.1:0"} {
		l, err := net.Listen("tcp", a)
		if err != nil {
			continue
		}
		l.Close()
		return l.Addr().String()
	}
	return preferred
}

// cli runs the CLI against the server and returns its standard output.
func (s *server) cli(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, s.binary, args...)
	cmd.Env = append(os.Environ(), "TATAMI_SERVER=unix://"+filepath.Join(s.dir, "run", "control.sock"))
	var out, errb bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errb
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("tatami %s: %w\n%s", strings.Join(args, " "), err, errb.String())
	}
	return out.String(), nil
}

// answer is what came back for one request, read to its end.
type answer struct {
	code   int
	status string
	header http.Header
	body   string
}

// do sends one request to the public listener.
func (s *server) do(ctx context.Context, method, path string) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+s.public+path, nil)
	if err != nil {
		return answer{}, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Status, resp.Header, string(body)}, err
}

// stop ends the server, checks that nothing of it is left on the machine, and removes its directory.
func (s *server) stop() error {
	if err := s.cmd.Process.Signal(syscall.SIGINT); err != nil {
		return err
	}
	select {
	case err := <-s.ended:
		if err != nil {
			return fmt.Errorf("tatami up: %w\n%s", err, s.logTail())
		}
	case <-time.After(90 * time.Second):
		_ = s.cmd.Process.Kill()
		return fmt.Errorf("tatami up did not end within 90s\n%s", s.logTail())
	}
	s.log.Close()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	if strings.Contains(string(mounts), s.dir+"/") {
		return fmt.Errorf("mounts are left below %s", s.dir)
	}
	for _, pattern := range []string{"/sys/fs/cgroup/tatami-" + s.node, "/sys/fs/cgroup/*/tatami-" + s.node} {
		if left, _ := filepath.Glob(pattern); len(left) > 0 {
			return fmt.Errorf("cgroups are left: %v", left)
		}
	}
	return os.RemoveAll(s.dir)
}

func (s *server) logTail() string {
	b, err := os.ReadFile(s.log.Name())
	if err != nil {
		return ""
	}
	return string(b[max(0, len(b)-4096):])
}
