//go:build e2e

package power

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sys/unix"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/queue"
	"github.com/tatami-faas/tatami/internal/bus"
)

// childDir names the data directory, childLog where attempts are written down, in the environment of the process that loses its power.
const (
	childDir = "TATAMI_POWER_TEST_DIR"
	childLog = "TATAMI_POWER_TEST_LOG"
)

var hello = functions.Ref{Namespace: "default", Name: "hello"}

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		if err := child(dir, os.Getenv(childLog)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Getenv(alone) == "" {
		os.Exit(runAlone())
	}
	os.Exit(m.Run())
}

// callers is how many hand work over at the same time.
const callers = 16

// alone says that the process has its mounts for itself.
const alone = "TATAMI_POWER_TEST_ALONE"

// runAlone runs the tests in a mount namespace of their own: whoever else makes one would keep a copy of their mounts, and a filesystem that
// is still mounted somewhere does not forget what it did not write.
func runAlone() int {
	cmd := exec.Command(os.Args[0], os.Args[1:]...)
	cmd.Env = append(os.Environ(), alone+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	if failed := (*exec.ExitError)(nil); errors.As(err, &failed) {
		return failed.ExitCode()
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "the power-loss suite needs root: %v\n", err)
		return 1
	}
	return 0
}

// open runs a queue on the directory; attempts are written to the log, which lies elsewhere.
func open(ctx context.Context, dir, log string) (*bus.Bus, *queue.Queue, error) {
	// The server's own syncs would hide what the barrier leaves out.
	b, err := bus.Open(ctx, bus.Config{DataDir: filepath.Join(dir, "data"), SyncInterval: time.Hour, ReserveBytes: 8 << 20}, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		return nil, nil, err
	}
	f, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, nil, err
	}
	q, err := queue.NewOver(queue.Config{RetryFloor: 1000, BackoffBase: 50 * time.Millisecond, BackoffMax: 100 * time.Millisecond}, b, newPath(f), slog.New(slog.DiscardHandler))
	return b, q, err
}

// child hands work over, runs it, and says what it was told, until its disk fails and it is killed.
func child(dir, log string) error {
	b, q, err := open(context.Background(), dir, log)
	if err != nil {
		return err
	}
	// The server passes on what it is about to store: a dead letter is heard of before its invocation's message can be acknowledged.
	if _, err := b.Conn().Subscribe("dead.>", func(m *nats.Msg) {
		say("burying", m.Subject[strings.LastIndexByte(m.Subject, '.')+1:], "-")
	}); err != nil {
		return err
	}
	go func() { _ = q.Run(context.Background()) }()
	large := bytes.Repeat([]byte("large"), 12<<10)
	for n := range callers {
		go func() {
			for i := 0; ; i++ {
				r := queue.Request{Ref: hello, Path: paths[i%len(paths)], Body: []byte("x")}
				switch {
				case i%7 == 0:
					r.Body = large
				case i%11 == 0:
					r.Key = fmt.Sprintf("%d-%d-%d", os.Getpid(), n, i)
				case i%40 == 1:
					// What stays in between makes the server rewrite its files.
					r.Path, r.NotBefore = "/later", time.Now().Add(time.Hour)
				}
				id, err := q.Accept(context.Background(), r)
				if err != nil {
					// The power is gone: what is said from here on is not heard.
					select {}
				}
				say("accepted", string(id), r.Path)
				if i%3 > 0 || r.Path == "/later" {
					continue
				}
				if st, err := q.Lookup(context.Background(), id, time.Minute); err == nil && st.State.Terminal() {
					say("ended", string(id), string(st.State))
				}
			}
		}()
	}
	select {}
}

// say prints a line, with the time by the machine's clock.
func say(what, id, more string) { fmt.Printf("%s %s %s %d\n", what, id, more, now()) }

// now is the time in nanoseconds by a clock that all processes have in common and that nobody sets.
func now() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err)
	}
	return ts.Nano()
}

var paths = []string{"/ok", "/ok", "/ok", "/retry", "/ok", "/dead", "/ok", "/refused"}

// path is a data path in this process: each attempt is a line in the log.
type path struct {
	log   io.Writer
	rev   *functions.Revision
	slots chan struct{}
}

func newPath(log io.Writer) *path {
	retries := 1
	c := functions.Config{Queue: functions.Queue{Retries: &retries}}.WithDefaults()
	return &path{log: log, slots: make(chan struct{}, 16),
		rev: &functions.Revision{Schema: 1, ID: "rev_power", Namespace: hello.Namespace, Function: hello.Name, Config: c}}
}

// Lookup knows one function.
func (p *path) Lookup(context.Context, functions.Ref) (*functions.Revision, error) { return p.rev, nil }

// SetBacklog is of no use here.
func (p *path) SetBacklog(functions.Ref, int) {}

// Lease waits for one of the slots.
func (p *path) Lease(ctx context.Context, _ functions.Ref) (queue.Lease, error) {
	select {
	case p.slots <- struct{}{}:
		return lease{p}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type lease struct{ p *path }

// RoundTrip writes the attempt down and answers as the path says.
func (l lease) RoundTrip(r *http.Request) (*http.Response, error) {
	id, attempt := r.Header.Get("Tatami-Invocation-Id"), r.Header.Get("Tatami-Attempt")
	if _, err := fmt.Fprintln(l.p.log, id, attempt); err != nil {
		return nil, err
	}
	status := http.StatusOK
	switch {
	case r.URL.Path == "/hold":
		<-r.Context().Done()
		return nil, r.Context().Err()
	case r.URL.Path == "/dead", r.URL.Path == "/retry" && attempt == "1":
		status = http.StatusServiceUnavailable
	case r.URL.Path == "/refused":
		status = http.StatusBadRequest
	}
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("answer"))}, nil
}

// Release gives the slot back.
func (l lease) Release() { <-l.p.slots }

// Revision is the function's one.
func (l lease) Revision() *functions.Revision { return l.p.rev }

// Instance is a name.
func (l lease) Instance() functions.InstanceID { return "ins_power" }

// Cold is never so.
func (l lease) Cold() bool { return false }
