//go:build e2e

package harness

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/tests/process"
)

// Server is one `tatami up` with directories of its own.
type Server struct {
	// Public and Control are the addresses of its listeners.
	Public, Control string
	// DataDir and RunDir are its directories; they stay over restarts.
	DataDir, RunDir string
	// Flags are given beside the harness's own.
	Flags []string

	restartable
	name   string
	client *http.Client
}

// Option changes a server before it starts.
type Option func(*Server)

// WithFlags adds flags of `tatami up`.
func WithFlags(flags ...string) Option {
	return func(s *Server) { s.Flags = append(s.Flags, flags...) }
}

// WithDataDir replaces the data directory.
func WithDataDir(dir string) Option { return func(s *Server) { s.DataDir = dir } }

// WithVerb runs another verb than up.
func WithVerb(verb string) Option { return func(s *Server) { s.verb = verb } }

// Start runs a server and waits until it is ready. When the test ends the server is stopped, and the test fails if anything of it is
// left on the machine.
func Start(t testing.TB, opts ...Option) *Server {
	t.Helper()
	s := prepare(t, opts)
	s.Launch()
	return s
}

// StartTogether is Start of servers that wait for each other.
func StartTogether(t testing.TB, each ...[]Option) []*Server {
	t.Helper()
	var all []*Server
	for _, opts := range each {
		all = append(all, prepare(t, opts))
	}
	var wg sync.WaitGroup
	for _, s := range all {
		wg.Go(func() {
			if err := s.TryLaunch(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return all
}

func prepare(t testing.TB, opts []Option) *Server {
	t.Helper()
	Require(t)
	dir, err := os.MkdirTemp("/tmp", "tt") //nolint:usetesting // the test's own directory would be too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{
		DataDir: filepath.Join(dir, "data"), RunDir: filepath.Join(dir, "run"), Public: freeAddr(t), Control: freeAddr(t), name: filepath.Base(dir), client: http.DefaultClient,
	}
	s.restartable = restartable{t: t, binary: Binary(t), verb: "up", args: s.args, output: newOutput(t, s.name)}
	for _, o := range opts {
		o(s)
	}
	t.Cleanup(func() {
		s.Stop()
		s.CheckNothingLeft()
		if t.Failed() {
			s.tellOutput("the server " + s.name)
			if keep := os.Getenv("TATAMI_KEEP"); keep != "" {
				t.Logf("kept: %s", dir)
				return
			}
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("the directories are not removable: %v", err)
		}
	})
	return s
}

// Require fails the test where real containers cannot be run.
func Require(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("the end-to-end tests run real containers and need root")
	}
	if _, err := exec.LookPath("runc"); err != nil {
		t.Fatal("the end-to-end tests need runc: apt-get install runc")
	}
}

// Binary returns the path of the binary under test.
func Binary(t testing.TB) string {
	t.Helper()
	if b := os.Getenv("TATAMI_BINARY"); b != "" {
		return b
	}
	b := filepath.Join(Root(t), "bin", "tatami")
	if _, err := os.Stat(b); err != nil {
		t.Fatal("no binary to test: run 'make build' first, or name one in TATAMI_BINARY")
	}
	return b
}

// Root returns the repository's directory.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	for err == nil && dir != "/" {
		if _, missing := os.Stat(filepath.Join(dir, "go.mod")); missing == nil {
			if b, _ := os.ReadFile(filepath.Join(dir, "go.mod")); bytes.HasPrefix(b, []byte("module github.com/tatami-faas/tatami\n")) {
				return dir
			}
		}
		dir = filepath.Dir(dir)
	}
	t.Fatal("the test does not run inside the repository")
	return ""
}

func (s *Server) args() []string {
	return append([]string{
		"--data-dir", s.DataDir, "--run-dir", s.RunDir, "--public-addr", s.Public, "--control-addr", s.Control,
		"--node-name", s.name, "--log-level", "debug", "--log-format", "text",
	}, s.Flags...)
}

// URL returns the address of a path of the public listener.
func (s *Server) URL(path string) string { return "http://" + s.Public + path }

// Result is what a run of the CLI gave.
type Result = process.Result

// CLI runs the CLI against the server.
func (s *Server) CLI(args ...string) Result { return s.CLIWithInput("", args...) }

// CLIWithInput is CLI with a standard input.
func (s *Server) CLIWithInput(stdin string, args ...string) Result {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 5*time.Minute)
	defer cancel()
	r, err := process.CLI(ctx, s.binary, s.RunDir, stdin, args...)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// Must runs the CLI and fails the test unless it ends well.
func (s *Server) Must(args ...string) Result {
	s.t.Helper()
	r := s.CLI(args...)
	if r.Exit != 0 {
		s.t.Fatalf("tatami %s ended with %d\n%s%s", strings.Join(args, " "), r.Exit, r.Stdout, r.Stderr)
	}
	return r
}

// Deploy deploys a directory of functions/examples under a name, with a tatami.yaml of its own.
func (s *Server) Deploy(name, example, spec string) Result {
	s.t.Helper()
	r := s.TryDeploy(name, example, spec)
	if r.Exit != 0 {
		s.t.Fatalf("deploy of %s ended with %d\n%s%s", name, r.Exit, r.Stdout, r.Stderr)
	}
	return r
}

// TryDeploy is Deploy without the check.
func (s *Server) TryDeploy(name, example, spec string) Result {
	s.t.Helper()
	file := filepath.Join(s.t.TempDir(), "tatami.yaml")
	src := filepath.Join(Root(s.t), "functions", "examples", example)
	content := fmt.Sprintf("name: %s\nsource: %s\n%s", name, src, spec)
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		s.t.Fatal(err)
	}
	return s.CLI("deploy", "--file", file)
}

// Get fetches a path of the public listener.
func (s *Server) Get(path string) (*http.Response, string) {
	s.t.Helper()
	return s.Do("GET", path, "", nil)
}

// Do makes a request to the public listener.
func (s *Server) Do(method, path, body string, header http.Header) (*http.Response, string) {
	s.t.Helper()
	resp, got, err := s.TryDo(method, path, body, header)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp, got
}

// TryDo is Do that returns the error; what was read of the body comes with it.
func (s *Server) TryDo(method, path, body string, header http.Header) (*http.Response, string, error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), 3*time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, s.URL(path), strings.NewReader(body))
	if err != nil {
		return nil, "", err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	_, err = b.ReadFrom(resp.Body)
	return resp, b.String(), err
}

// Open begins to fetch a path of the public listener, until the body is closed or the test ends.
func (s *Server) Open(path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(s.t.Context(), "GET", s.URL(path), nil)
	if err != nil {
		return nil, err
	}
	return s.client.Do(req)
}

func freeAddr(t testing.TB) string {
	t.Helper()
	addr, err := process.FreeAddr("")
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// Leftovers lists what of the server is on the machine: processes, mounts, cgroups.
func (s *Server) Leftovers() []string {
	return process.Leftovers(filepath.Dir(s.RunDir), s.DataDir, func(name string) bool { return name == s.CgroupName() })
}

// CgroupName is the name of the cgroup under which the server's sandboxes lie.
func (s *Server) CgroupName() string { return "tatami-" + s.name }

// CheckNothingLeft fails the test if anything of the server is left on the machine.
func (s *Server) CheckNothingLeft() {
	s.t.Helper()
	checkNothingLeft(s.t, s.Leftovers)
}
