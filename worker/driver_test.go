package worker_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/runtime/sandbox"
)

// simDriver keeps the sandbox contract with HTTP servers of this process instead of containers: a sandbox listens on loopback, appends
// to log files, and ends when told. It outlives workers, as the real one's sandboxes do. A function's command says how it behaves.
type simDriver struct {
	t   *testing.T
	dir string

	mu       sync.Mutex
	boxes    map[functions.InstanceID]*simBox
	prepared []string
	// released are the digests that were released.
	released []string
	pids     int
	// making counts the sandboxes being made, most the highest count seen.
	making, most int
	// gate, if set, holds every Create until something is sent.
	gate chan struct{}
	// stopFails is how many Stops fail.
	stopFails int
	specs     []sandbox.Spec
	// activates says that sandboxes are given their sockets, where that is asked for.
	activates bool
	// lacks are the features that the node does not have.
	lacks map[functions.Feature]string
}

func newSimDriver(t *testing.T) *simDriver {
	t.Helper()
	d := &simDriver{t: t, dir: t.TempDir(), boxes: map[functions.InstanceID]*simBox{}, pids: 100}
	t.Cleanup(func() {
		for _, b := range d.all() {
			t.Errorf("sandbox %s was left behind", b.spec.ID)
			b.exit(functions.Exit{Code: 137})
		}
	})
	return d
}

func (d *simDriver) all() []*simBox {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []*simBox
	for _, b := range d.boxes {
		out = append(out, b)
	}
	return out
}

func (d *simDriver) box(id functions.InstanceID) *simBox {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.boxes[id]
}

func (d *simDriver) Prepare(ctx context.Context, a functions.Artifact) (sandbox.Image, error) {
	switch a.Name {
	case "missing":
		return sandbox.Image{}, fault.New(fault.CodeInvalidArtifact, "image %s is not there", a.Name).WithHint("push it first")
	case "away":
		return sandbox.Image{}, fault.New(fault.CodeUnavailable, "the store of images is away")
	case "endless":
		<-ctx.Done()
		return sandbox.Image{}, ctx.Err()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !slices.Contains(d.prepared, a.Digest) {
		d.prepared = append(d.prepared, a.Digest)
	}
	return sandbox.Image{Digest: a.Digest}, nil
}

func (d *simDriver) Prepared() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.prepared)
}

func (d *simDriver) Lacks() map[functions.Feature]string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.lacks)
}

func (d *simDriver) Create(ctx context.Context, s sandbox.Spec) (sandbox.Sandbox, error) {
	d.mu.Lock()
	d.making++
	d.most = max(d.most, d.making)
	d.specs = append(d.specs, s)
	gate := d.gate
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.making--
	}()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	b := &simBox{driver: d, spec: s, done: make(chan struct{}), listening: make(chan struct{})}
	b.info = sandbox.Info{
		ID: s.ID, Record: s.Record, Created: time.Now(), Create: time.Millisecond, Start: time.Millisecond,
		Stdout: filepath.Join(d.dir, string(s.ID)+".out"), Stderr: filepath.Join(d.dir, string(s.ID)+".err"),
	}
	b.info.Activated = d.activates && s.Activate
	for _, f := range []string{b.info.Stdout, b.info.Stderr} {
		if err := os.WriteFile(f, nil, 0o600); err != nil {
			return nil, err
		}
	}
	d.mu.Lock()
	d.pids++
	b.info.PID = d.pids
	d.boxes[s.ID] = b
	d.mu.Unlock()
	b.behave()
	return b, nil
}

func (d *simDriver) List(context.Context) ([]sandbox.Sandbox, error) {
	var out []sandbox.Sandbox
	for _, b := range d.all() {
		out = append(out, b)
	}
	return out, nil
}

func (d *simDriver) Forget(_ context.Context, digest string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.prepared = slices.DeleteFunc(d.prepared, func(p string) bool { return p == digest })
	return nil
}

func (d *simDriver) wasReleased() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.released)
}

func (d *simDriver) Release(digest string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.released = append(d.released, digest)
}

func (d *simDriver) Close() error { return nil }

type simBox struct {
	driver *simDriver
	spec   sandbox.Spec

	mu        sync.Mutex
	info      sandbox.Info
	server    *http.Server
	addr      string
	end       functions.Exit
	ended     bool
	done      chan struct{}
	listening chan struct{}
	timer     *time.Timer
	terms     atomic.Int32
	frost     simFrost
}

// behave reads the command's words: serve, print:TEXT, late:DURATION, never, exit:CODE, oom, status:CODE, h2c, stubborn.
func (b *simBox) behave() {
	status := http.StatusOK
	for _, word := range b.spec.Command {
		verb, arg, _ := strings.Cut(word, ":")
		switch verb {
		case "print":
			b.write(b.info.Stderr, arg+"\n")
		case "never", "stubborn":
			if verb == "never" {
				return
			}
		case "oom":
			b.exit(functions.Exit{Code: 137, OOM: true})
			return
		case "exit":
			code, _ := strconv.Atoi(arg)
			b.exit(functions.Exit{Code: code})
			return
		case "late":
			d, err := time.ParseDuration(arg)
			if err != nil {
				b.driver.t.Error(err)
			}
			b.timer = time.AfterFunc(d, func() { b.listen(status) })
			return
		case "status":
			status, _ = strconv.Atoi(arg)
		}
	}
	b.listen(status)
}

func (b *simBox) listen(status int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended {
		return
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.driver.t.Error(err)
		return
	}
	b.addr = l.Addr().String()
	b.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(status)
		fmt.Fprintf(w, "%s %s", b.spec.ID, r.URL.Path)
	})}
	if slices.Contains(b.spec.Command, "h2c") {
		b.server.Protocols = new(http.Protocols)
		b.server.Protocols.SetUnencryptedHTTP2(true)
	}
	go func() { _ = b.server.Serve(l) }()
	close(b.listening)
}

func (b *simBox) write(path, text string) {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		b.driver.t.Error(err)
		return
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		b.driver.t.Error(err)
	}
}

// exit ends the process.
func (b *simBox) exit(e functions.Exit) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended {
		return
	}
	b.ended, b.end, b.info.PID = true, e, 0
	if b.timer != nil {
		b.timer.Stop()
	}
	if b.server != nil {
		_ = b.server.Close()
	}
	close(b.done)
}

func (b *simBox) Info() sandbox.Info {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.info
}

func (b *simBox) Dial(ctx context.Context) (net.Conn, error) {
	b.mu.Lock()
	addr := b.addr
	b.mu.Unlock()
	if addr == "" {
		return nil, errors.New("connection refused")
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", addr)
}

func (b *simBox) AwaitListening(ctx context.Context) error {
	for {
		conn, err := b.Dial(ctx)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-b.done:
			return err
		case <-time.After(time.Millisecond):
		}
	}
}

func (b *simBox) Exec(_ context.Context, args []string, stdin io.Reader, stdout, _ io.Writer) (int, error) {
	in, err := io.ReadAll(stdin)
	fmt.Fprintf(stdout, "%v %s", args, in)
	return 3, err
}

func (b *simBox) Stats(context.Context) (functions.Usage, error) {
	return functions.Usage{CPU: functions.Duration(time.Second), Memory: 7 * functions.MiB, PIDs: 2}, nil
}

// simFrost keeps account of what a driver's freezer is asked for.
type simFrost struct {
	// frozen says that the processes stand still, or may; freezes counts how often they did.
	frozen, asked atomic.Bool
	freezes       atomic.Int64
	reclaims      atomic.Int64
	// slow, if set, holds every Freeze until its context ends; stuck makes Thaw fail.
	slow, stuck atomic.Bool
}

func (b *simBox) Freeze(ctx context.Context) error {
	if b.frost.asked.Swap(true) {
		b.driver.t.Error("frozen twice")
	}
	b.frost.frozen.Store(true)
	if b.frost.slow.Load() {
		<-ctx.Done()
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	b.frost.freezes.Add(1)
	return nil
}

func (b *simBox) Thaw() error {
	if b.frost.stuck.Load() {
		return errors.New("stuck")
	}
	b.frost.asked.Store(false)
	b.frost.frozen.Store(false)
	return nil
}

func (b *simBox) Reclaim(context.Context) (int64, error) {
	b.frost.reclaims.Add(1)
	return functions.MiB, nil
}

func (b *simBox) Stop(ctx context.Context, grace time.Duration) error {
	b.driver.mu.Lock()
	fails := b.driver.stopFails > 0
	b.driver.stopFails--
	b.driver.mu.Unlock()
	if fails {
		return errors.New("busy")
	}
	b.terms.Add(1)
	if slices.Contains(b.spec.Command, "stubborn") {
		select {
		case <-b.done:
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(grace):
		}
		b.exit(functions.Exit{Code: 137})
	}
	b.exit(functions.Exit{Code: 143})
	for _, f := range []string{b.info.Stdout, b.info.Stderr} {
		_ = os.Remove(f)
	}
	b.driver.mu.Lock()
	defer b.driver.mu.Unlock()
	delete(b.driver.boxes, b.spec.ID)
	return nil
}

func (b *simBox) Done() <-chan struct{} { return b.done }

func (b *simBox) Exit() functions.Exit {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.end
}
