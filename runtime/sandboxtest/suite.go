package sandboxtest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/runtime/sandbox"
)

// Setup is what the suite needs of a driver.
type Setup struct {
	// Blobs is where the suite puts the images' blobs; the drivers read them there.
	Blobs Blobs
	// Open opens a driver that works. Each call opens the same directories; the suite has closed the driver before.
	Open func(t testing.TB) sandbox.Driver
	// Crash opens a driver in another process, prepares and creates the sandbox there and stops it, and kills that process with SIGKILL
	// when it has been in the given step for the given time. It returns the sandbox where Create had returned.
	Crash func(t testing.TB, spec sandbox.Spec, in Step, after time.Duration) *sandbox.Info
	// Mapped says that an image which names root, or no user, runs as root of a user namespace; else it runs as user 65532.
	Mapped bool
	// Guest says that a kernel of the sandbox's own answers its system calls: it shows less in /proc, all processes end where one takes too much
	// memory, and they cannot be frozen.
	Guest bool
	// Parts are those that are run, by their names; nil: all.
	Parts []string
	// Left lists what there is of sandboxes outside the driver's memory: containers, processes, mounts, namespaces, cgroups, files.
	Left func(t testing.TB) []string
}

// Step is what a process is at when it is killed.
type Step string

// The steps, in their order. A sandbox serves when StepServe begins.
const (
	StepPrepare Step = "prepare"
	StepCreate  Step = "create"
	StepServe   Step = "serve"
	StepStop    Step = "stop"
)

// Run checks the driver against the contract.
func Run(t *testing.T, setup Setup) {
	s := &suite{Setup: setup, fn: BuildFunction(t)}
	s.artifact = s.Blobs.Put(t, Image(t, v1.Config{Entrypoint: []string{"/testfn"}, Env: []string{"FROM_IMAGE=yes", "BOTH=image"}}, runtime.GOARCH, s.fn))
	s.driver = s.Open(t)
	defer func() { _ = s.driver.Close() }()
	for _, part := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"Prepare", s.prepare}, {"Life", s.life}, {"Limits", s.limits}, {"Isolation", s.isolation}, {"Exec", s.exec}, {"Output", s.output}, {"Frozen", s.frozen}, {"Activation", s.activation}, {"Adoption", s.adoption},
	} {
		if s.Parts != nil && !slices.Contains(s.Parts, part.name) {
			continue
		}
		t.Run(part.name, part.run)
		if t.Failed() {
			for _, left := range s.list(t) {
				_ = left.Stop(context.Background(), 0)
			}
		}
		if left := s.Left(t); len(left) > 0 {
			t.Errorf("%s leaves behind: %q", part.name, left)
		}
	}
}

type suite struct {
	Setup
	fn       v1.Layer
	artifact functions.Artifact
	driver   sandbox.Driver
}

// reopen closes the driver and opens another in its place.
func (s *suite) reopen(t testing.TB) {
	t.Helper()
	if err := s.driver.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	s.driver = s.Open(t)
}

func (s *suite) list(t testing.TB) []sandbox.Sandbox {
	t.Helper()
	l, err := s.driver.List(context.Background())
	if err != nil {
		t.Fatalf("list: %v", err)
	}
	return l
}

// find returns the sandbox by its id; nil where the driver has none.
func (s *suite) find(t testing.TB, id functions.InstanceID) sandbox.Sandbox {
	t.Helper()
	for _, sb := range s.list(t) {
		if sb.Info().ID == id {
			return sb
		}
	}
	return nil
}

// spec is a sandbox with generous limits that a test then narrows.
func (s *suite) spec(env ...string) sandbox.Spec {
	return sandbox.Spec{
		ID: functions.NewInstanceID(), Artifact: s.artifact, Env: append([]string{"PORT=8080"}, env...), Port: 8080,
		Limits: functions.Limits{CPU: 2000, Memory: 128 * functions.MiB, Ephemeral: 16 * functions.MiB, PIDs: 64},
		Record: []byte("a record"),
	}
}

// create makes a sandbox that goes away with the test, and waits until it serves.
func (s *suite) create(t *testing.T, spec sandbox.Spec) *client {
	t.Helper()
	sb := s.start(t, spec)
	return serving(t, sb)
}

func (s *suite) start(t *testing.T, spec sandbox.Spec) sandbox.Sandbox {
	t.Helper()
	if _, err := s.driver.Prepare(t.Context(), spec.Artifact); err != nil {
		t.Fatalf("prepare: %v", err)
	}
	sb, err := s.driver.Create(t.Context(), spec)
	if err != nil {
		t.Fatalf("create: %v", err)
	}
	t.Cleanup(func() {
		// By another driver where the test has opened one.
		if again := s.find(t, spec.ID); again != nil {
			if err := again.Stop(context.Background(), 0); err != nil {
				t.Errorf("stop: %v", err)
			}
		}
	})
	return sb
}

// client speaks HTTP with a sandbox.
type client struct {
	sandbox.Sandbox
	t    *testing.T
	http *http.Client
}

// serving waits until the sandbox accepts connections.
func serving(t *testing.T, sb sandbox.Sandbox) *client {
	t.Helper()
	c := &client{Sandbox: sb, t: t, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return sb.Dial(ctx) },
	}}}
	t.Cleanup(c.http.CloseIdleConnections)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		conn, err := sb.Dial(ctx)
		if err == nil {
			conn.Close()
			return c
		}
		select {
		case <-sb.Done():
			said, _ := os.ReadFile(sb.Info().Stderr)
			t.Fatalf("the process ended before it served: %+v: %.2000s", sb.Exit(), said)
		case <-ctx.Done():
			t.Fatalf("the process does not serve: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
}

// try sends a request; an answer other than 200 is an error with its text.
func (c *client) try(path string, args ...string) (string, error) {
	q := url.Values{}
	for i := 0; i+1 < len(args); i += 2 {
		q.Add(args[i], args[i+1])
	}
	resp, err := c.http.Get("http://sandbox" + path + "?" + q.Encode())
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s", body)
	}
	return string(body), err
}

func (c *client) get(path string, args ...string) string {
	c.t.Helper()
	body, err := c.try(path, args...)
	if err != nil {
		c.t.Fatalf("%s %q: %v", path, args, err)
	}
	return body
}

// sees is what the process knows of itself, as the test function tells it.
type sees struct {
	UID, GID, PID int
	Groups        []int
	Hostname, Cwd string
	Env, Args     []string
	Interfaces    []string
}

func (c *client) sees() sees {
	c.t.Helper()
	var s sees
	if err := json.Unmarshal([]byte(c.get("/sees")), &s); err != nil {
		c.t.Fatal(err)
	}
	return s
}

// user is whom the suite's image, which names no user, runs as.
func (s *suite) user() int {
	if s.Mapped {
		return 0
	}
	return 65532
}

// id is what the test function prints of its user.
func (s *suite) id() string { return fmt.Sprintf("%d:%d\n", s.user(), s.user()) }

func (s sees) has(env string) bool { return slices.Contains(s.Env, env) }

// exits waits for the process's end.
func exits(t testing.TB, sb sandbox.Sandbox) functions.Exit {
	t.Helper()
	select {
	case <-sb.Done():
	case <-time.After(30 * time.Second):
		t.Fatal("the process does not end")
	}
	return sb.Exit()
}

// eventually waits for what another process brings about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("not within 20 s: %s", what)
}
