package queue

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/tests/beside"
	"github.com/tatami-faas/tatami/tests/leaks"
)

// childDir names the data directory in the environment of a process that is made to be killed.
const childDir = "TATAMI_QUEUE_TEST_CHILD"

// childKeys makes such a process use keys.
const childKeys = "TATAMI_QUEUE_TEST_KEYS"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		run := child
		if os.Getenv(childKeys) != "" {
			run = keyedChild
		}
		if err := run(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	beside.Run(6)
	// A client that starts this goroutine while its connection closes waits on no channel: the library's own leak.
	leaks.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/nats-io/nats.go/jetstream.(*jetStream).resetPendingAcksOnReconnect"))
}

// child takes invocations and runs them until it is killed. It prints each accepted id, and writes down every attempt where a kill
// does not lose it.
func child(dir string) error {
	b, err := bus.Open(context.Background(), bus.Config{DataDir: filepath.Join(dir, "data")}, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		return err
	}
	log, err := attemptLog(dir)
	if err != nil {
		return err
	}
	run := childDataPath(log)
	q, err := NewOver(Config{RetryFloor: 1000, BackoffBase: 50 * time.Millisecond, BackoffMax: 100 * time.Millisecond}, b, run, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	go func() { _ = q.Run(context.Background()) }()
	failed := make(chan error)
	for range 8 {
		go func() {
			for i := 0; ; i++ {
				path := "/ok"
				switch i % 10 {
				case 7:
					path = "/retry"
				case 8:
					path = "/dead"
				}
				id, err := q.Accept(context.Background(), Request{Ref: hello, Path: path, Body: []byte("x")})
				if err != nil {
					failed <- err
				}
				fmt.Printf("%s %s\n", id, path)
			}
		}()
	}
	return <-failed
}

func attemptLog(dir string) (*os.File, error) {
	return os.OpenFile(filepath.Join(dir, "attempts"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
}

// childDataPath answers without a network: a line before and a line after each attempt.
func childDataPath(log *os.File) *testDataPath {
	r := &testDataPath{free: 8, changed: make(chan struct{}), revs: map[functions.Ref]*functions.Revision{},
		leaseErr: map[functions.Ref]error{}, backlog: map[functions.Ref]int{}}
	r.deploy(hello, nil)
	r.trip = func(req *http.Request) (*http.Response, error) {
		id, attempt := req.Header.Get(headerInvocation), req.Header.Get(headerAttempt)
		_, _ = fmt.Fprintln(log, id, attempt)
		resp, err := noop(req)
		if req.URL.Path == "/dead" || req.URL.Path == "/retry" && attempt == "1" {
			resp.StatusCode = 500
		}
		return resp, err
	}
	return r
}

// killChild runs the test's own program as a child on the directory and kills it once it has printed so many lines. What it printed until the
// signal reaches it counts too.
func killChild(t *testing.T, dir string, enough int, line func(string), env ...string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), childDir+"="+dir), env...)
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	n, lines := 0, bufio.NewScanner(out)
	for lines.Scan() {
		line(lines.Text())
		if n++; n == enough {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait()
	if n < enough {
		t.Fatalf("the process ended by itself after %d", n)
	}
}

func TestAKillLosesNothingAndEndsEachOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	accepted := map[functions.InvocationID]string{}
	const rounds = 4
	for range rounds {
		killChild(t, dir, 300, func(line string) {
			if id, path, ok := strings.Cut(line, " "); ok && path != "" {
				accepted[functions.InvocationID(id)] = path
			}
		})
	}
	log, err := attemptLog(dir)
	if err != nil {
		t.Fatal(err)
	}
	w := start(t, filepath.Join(dir, "data"), childDataPath(log), Config{})
	for id, path := range accepted {
		st := w.ends(id)
		want := functions.StateSucceeded
		if path == "/dead" {
			want = functions.StateDead
		}
		if st.State != want {
			t.Errorf("%s %s: %+v", id, path, st)
		}
	}
	w.empty()
	for id, path := range accepted {
		if path != "/dead" {
			continue
		}
		if _, err := w.q.ShowDead(t.Context(), id); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
	if d := w.q.Depth(hello); d.Pending+d.Running+d.Scheduled != 0 {
		t.Errorf("depth %+v", d)
	}
	checkAttempts(t, dir, accepted, rounds)
}

// checkAttempts holds the written attempts against the promise: those under way at a kill may be made again, no other.
func checkAttempts(t *testing.T, dir string, accepted map[functions.InvocationID]string, kills int) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "attempts"))
	if err != nil {
		t.Fatal(err)
	}
	made := map[string]int{}
	for line := range strings.Lines(string(data)) {
		made[strings.TrimSpace(line)]++
	}
	again := 0
	for _, n := range made {
		again += n - 1
	}
	for id, path := range accepted {
		want := map[string]int{"/ok": 1, "/retry": 2, "/dead": 3}[path]
		for n := 1; n <= want; n++ {
			if made[fmt.Sprintf("%s %d", id, n)] == 0 {
				t.Errorf("%s %s: attempt %d was never made", id, path, n)
			}
		}
		if made[fmt.Sprintf("%s %d", id, want+1)] > 0 {
			t.Errorf("%s %s: an attempt too many", id, path)
		}
	}
	t.Logf("%d accepted, %d attempts made again over %d kills", len(accepted), again, kills)
	// Eight slots, and what waits for the disk after its attempt.
	if most := kills * 200; again > most {
		t.Errorf("%d attempts were made again, more than were under way", again)
	}
}
