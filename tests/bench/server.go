package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
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

	v1 "github.com/tatami-faas/tatami/gateway/api/v1"
)

// server is a `tatami up` with default limits on directories of its own.
type server struct {
	binary, dir, public string
	cmd                 *exec.Cmd
	ended               chan error
	log                 bytes.Buffer
}

func startServer(ctx context.Context, binary string, more ...string) (*server, error) {
	dir, err := os.MkdirTemp("/tmp", "ttbench")
	if err != nil {
		return nil, err
	}
	s := &server{binary: binary, dir: dir, ended: make(chan error, 1)}
	if s.public, err = freeAddr(); err != nil {
		return nil, err
	}
	s.cmd = exec.Command(binary, append([]string{"up", "--data-dir", filepath.Join(dir, "data"), "--run-dir", s.runDir(), "--public-addr", s.public,
		"--control-addr", "", "--node-name", filepath.Base(dir), "--log-level", "warn"}, more...)...)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	s.cmd.Stderr = &s.log
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	ready := make(chan struct{})
	go func() {
		sc := bufio.NewScanner(out)
		told := false
		for sc.Scan() {
			if !told && strings.HasPrefix(sc.Text(), "ready") {
				told = true
				close(ready)
			}
		}
		s.ended <- s.cmd.Wait()
	}()
	select {
	case <-ready:
		return s, nil
	case err := <-s.ended:
		return nil, fmt.Errorf("tatami up: %w\n%s", err, &s.log)
	case <-ctx.Done():
		return nil, s.stopAfter(ctx.Err())
	}
}

func (s *server) runDir() string { return filepath.Join(s.dir, "run") }

// stopAfter ends the server and returns err, or what went wrong with that.
func (s *server) stopAfter(err error) error {
	_ = s.cmd.Process.Signal(syscall.SIGINT)
	if serr := <-s.ended; serr != nil && err == nil {
		err = fmt.Errorf("tatami up: %w\n%s", serr, &s.log)
	}
	if rerr := os.RemoveAll(s.dir); err == nil {
		err = rerr
	}
	return err
}

func (s *server) cli(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, s.binary, args...)
	cmd.Env = append(os.Environ(), "TATAMI_SERVER=unix://"+filepath.Join(s.runDir(), "control.sock"))
	var errb bytes.Buffer
	cmd.Stderr = &errb
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("tatami %s: %w\n%s", strings.Join(args, " "), err, &errb)
	}
	return out, nil
}

// deploy deploys an example under a name with settings of its own.
func (s *server) deploy(ctx context.Context, name, example, spec string) error {
	src, err := filepath.Abs(filepath.Join("functions", "examples", example))
	if err != nil {
		return err
	}
	file := filepath.Join(s.dir, name+".yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, "name: %s\nsource: %s\n%s", name, src, spec), 0o644); err != nil {
		return err
	}
	_, err = s.cli(ctx, "deploy", "--file", file)
	return err
}

func (s *server) instances(ctx context.Context, fn string) ([]v1.Instance, error) {
	out, err := s.cli(ctx, "inst", "ls", "-o", "json")
	if err != nil {
		return nil, err
	}
	var all, of []v1.Instance
	if err := json.Unmarshal(out, &all); err != nil {
		return nil, err
	}
	for _, i := range all {
		if i.Function == fn && !i.State.Gone() {
			of = append(of, i)
		}
	}
	return of, nil
}

func (s *server) instancePID(ctx context.Context, fn string) (int, error) {
	of, err := s.instances(ctx, fn)
	if err != nil {
		return 0, err
	}
	if len(of) != 1 || of[0].PID == 0 {
		return 0, fmt.Errorf("want one instance of %s, have %+v", fn, of)
	}
	return of[0].PID, nil
}

// awaitZero waits until no instance of the function exists in any state.
func (s *server) awaitZero(ctx context.Context, fn string) error {
	for begun := time.Now(); time.Since(begun) < time.Minute; {
		of, err := s.instances(ctx, fn)
		if err != nil {
			return err
		}
		if len(of) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	return fmt.Errorf("instances of %s are still there after a minute", fn)
}

// get fetches a path and returns how long it took; the connection is a new one each time.
func (s *server) get(ctx context.Context, path string) (time.Duration, http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, "GET", "http://"+s.public+path, nil)
	if err != nil {
		return 0, nil, err
	}
	t := &http.Transport{DisableKeepAlives: true}
	begun := time.Now()
	resp, err := t.RoundTrip(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	took := time.Since(begun)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", path, resp.Status, body)
	}
	return took, resp.Header, err
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
