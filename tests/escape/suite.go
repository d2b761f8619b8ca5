//go:build linux

package escape

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/runtime/sandbox"
	"github.com/tatami-faas/tatami/runtime/sandboxtest"
	"github.com/tatami-faas/tatami/tests/process"
)

// Setup is what the suite needs of a class of sandboxes.
type Setup struct {
	// Blobs is where the suite puts the images' blobs; the driver reads them there.
	Blobs sandboxtest.Blobs
	// Driver makes the sandboxes. It is open.
	Driver sandbox.Driver
	// Dirs are the driver's directories on the node: what lies there of a function no other may read.
	Dirs []string
	// Sockets are unix sockets of the platform on the node.
	Sockets []string
	// Class makes a sandbox one of the class that is tried; nil leaves it as it is.
	Class func(*sandbox.Spec)
	// Internet is what the class's sandboxes reach; nil: they have no network.
	Internet *Internet
	// Parts are those that are run, by their names; nil: all.
	Parts []string
	// Refused has, by an attempt's name and arguments, the refusals in which the class differs from a sandbox without privileges and network;
	// more than one are parted by '|'.
	Refused map[string]string
}

// suite is a setup with the hostile program, on the node and in an image.
type suite struct {
	Setup
	program string
	layer   v1.Layer
	image   functions.Artifact
}

// Run lets the hostile function try. The test must be in a network of its own: OwnNetwork.
func Run(t *testing.T, setup Setup) {
	if setup.Internet == nil {
		alone(t)
	}
	body := sandboxtest.Program(t, "tests/escape/hostile")
	s := &suite{Setup: setup, program: filepath.Join(t.TempDir(), "hostile")}
	if err := process.WriteProgram(s.program, body, 0o755); err != nil {
		t.Fatal(err)
	}
	s.layer = sandboxtest.Layer(t,
		sandboxtest.Entry{Name: "hostile", Body: body, Mode: 0o755},
		sandboxtest.Entry{Name: "setuid", Body: body, Mode: 0o6755},
		sandboxtest.Entry{Name: "null", Mode: 0o666, Major: 1, Minor: 3},
	)
	s.image = s.Blobs.Put(t, sandboxtest.Image(t, v1.Config{Entrypoint: []string{"/hostile"}}, runtime.GOARCH, s.layer))
	for _, part := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"Calls", s.calls}, {"Processes", s.processes}, {"Files", s.files}, {"Neighbours", s.neighbours}, {"Network", s.network},
		{"Resources", s.resources}, {"Entering", s.entering}, {"Places", s.places},
	} {
		if setup.Parts == nil || slices.Contains(setup.Parts, part.name) {
			t.Run(part.name, part.run)
		}
	}
}

// spec is a sandbox of the class that is tried.
func (s *suite) spec() sandbox.Spec {
	spec := sandbox.Spec{
		ID: functions.NewInstanceID(), Artifact: s.image, Env: []string{"PORT=8080"}, Port: 8080,
		Limits: functions.Limits{CPU: 2000, Memory: 256 * functions.MiB, Ephemeral: 16 * functions.MiB, PIDs: 64},
		Record: []byte("r"),
	}
	if s.Class != nil {
		s.Class(&spec)
	}
	return spec
}

// prisoner is a hostile function in its sandbox.
type prisoner struct {
	sandbox.Sandbox
	http *http.Client
}

// hold puts a hostile function into a sandbox that goes away with the test.
func (s *suite) hold(t *testing.T, spec sandbox.Spec) *prisoner {
	t.Helper()
	p, err := s.start(t, spec)
	if err != nil {
		t.Fatal(err)
	}
	return s.serve(t, p)
}

// serve waits until the function answers.
func (s *suite) serve(t *testing.T, p *prisoner) *prisoner {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		conn, err := p.Dial(ctx)
		if err == nil {
			conn.Close()
			return p
		}
		select {
		case <-p.Done():
			out, _ := os.ReadFile(p.Info().Stderr)
			t.Fatalf("the function ended before it served: %+v\n%s", p.Exit(), out)
		case <-ctx.Done():
			t.Fatalf("the function does not serve: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
}

// start is hold for a function that need not serve, or be started.
func (s *suite) start(t *testing.T, spec sandbox.Spec) (*prisoner, error) {
	t.Helper()
	if _, err := s.Driver.Prepare(t.Context(), spec.Artifact); err != nil {
		t.Fatalf("prepare: %v", err)
	}
	sb, err := s.Driver.Create(t.Context(), spec)
	if err != nil {
		return nil, err
	}
	p := &prisoner{Sandbox: sb, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return sb.Dial(ctx) },
	}}}
	t.Cleanup(func() {
		p.http.CloseIdleConnections()
		if err := sb.Stop(context.Background(), 0); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return p, nil
}

// outcome is what the hostile program tells of an attempt.
type outcome struct{ Errno, Error, Detail string }

// try makes the attempt in the sandbox.
func (p *prisoner) try(t *testing.T, name, args string) outcome {
	t.Helper()
	resp, err := p.http.Get("http://sandbox/try/" + name + "?" + args)
	if err != nil {
		t.Fatalf("%s %s: %v", name, args, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", name, args, err)
	}
	return parse(t, name, body)
}

func parse(t *testing.T, name string, body []byte) outcome {
	t.Helper()
	var out outcome
	if err := json.Unmarshal(body, &out); err != nil {
		t.Fatalf("%s: %q: %v", name, body, err)
	}
	return out
}

// control makes the attempt as root on the node. Namespaces of its own keep what succeeds from having an effect.
func (s *suite) control(t *testing.T, name, args string) outcome {
	t.Helper()
	cmd := exec.Command(s.program, "try", name, args)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Unshareflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC}
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("control of %s %s: %v", name, args, err)
	}
	return parse(t, name, out)
}

// refused checks that the attempt fails in the sandbox by this refusal, or the class's own.
func (s *suite) refused(t *testing.T, p *prisoner, name, args, want string) {
	t.Helper()
	key := strings.TrimSpace(name + " " + args)
	if own, ok := s.Refused[key]; ok {
		want = own
	}
	if got := p.try(t, name, args); !slices.Contains(strings.Split(want, "|"), got.Errno) {
		t.Errorf("%s: %q, not refused by %s: %s %s", key, got.Errno, want, got.Error, got.Detail)
	}
}

// succeeds checks that the attempt is one that can succeed.
func (s *suite) succeeds(t *testing.T, name, args string) {
	t.Helper()
	if got := s.control(t, name, args); got.Errno != "" {
		t.Errorf("%s %s fails outside of a sandbox too: %s", name, args, got.Error)
	}
}
