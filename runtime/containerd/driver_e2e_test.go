//go:build linux && e2e

package containerd

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/runtime/sandbox"
	"github.com/tatami-faas/tatami/runtime/sandboxtest"
)

func testImage(t testing.TB, blobs sandboxtest.Blobs, more ...v1.Layer) functions.Artifact {
	t.Helper()
	layers := append([]v1.Layer{sandboxtest.BuildFunction(t)}, more...)
	return blobs.Put(t, sandboxtest.Image(t, v1.Config{Entrypoint: []string{"/testfn"}}, goruntime.GOARCH, layers...))
}

func testSpec(a functions.Artifact) sandbox.Spec {
	return sandbox.Spec{
		ID: functions.NewInstanceID(), Artifact: a, Env: []string{"PORT=8080"}, Port: 8080, Record: []byte("r"),
		Limits: functions.Limits{CPU: 1000, Memory: 64 * functions.MiB, Ephemeral: 8 * functions.MiB, PIDs: 64},
	}
}

func awaitServing(t testing.TB, sb sandbox.Sandbox) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if conn, err := sb.Dial(t.Context()); err == nil {
			conn.Close()
			return
		}
	}
	t.Fatal("it does not serve")
}

// TestExistingContainerd runs a second driver against the containerd of the first, without and with sandboxes made ahead.
func TestExistingContainerd(t *testing.T) {
	t.Run("alone", func(t *testing.T) { testExistingContainerd(t, 0) })
	t.Run("with a pool", func(t *testing.T) { testExistingContainerd(t, 1) })
}

func testExistingContainerd(t *testing.T, pool int) {
	needInit(t)
	blobs := sandboxtest.Blobs(t.TempDir())
	host := testConfig(t)
	server := open(t, host, blobs)
	defer func() { _ = server.Close() }()

	cfg := testConfig(t)
	cfg.Address, cfg.SandboxPool = host.engineSocket(), pool
	// The client of an existing containerd looks for the shim of that containerd.
	t.Setenv("PATH", filepath.Dir(host.shimBinary())+":"+os.Getenv("PATH"))
	d := open(t, cfg, blobs)
	a := testImage(t, blobs)
	if _, err := d.Prepare(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	awaitPool(t, d, pool)
	sb, err := d.Create(t.Context(), testSpec(a))
	if err != nil {
		t.Fatal(err)
	}
	if path := sb.Info().StartPath; (path == pathAttach) != (pool > 0) {
		t.Errorf("started by the path %s: %s", path, sb.Info().PathReason)
	}
	awaitServing(t, sb)
	var out strings.Builder
	if code, err := sb.Exec(t.Context(), []string{"/testfn", "id"}, nil, &out, nil); err != nil || code != 0 || out.String() != "65532:65532\n" {
		t.Errorf("exec: %d, %q, %v", code, out.String(), err)
	}
	pid := sb.Info().PID
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = open(t, cfg, blobs)
	defer func() { _ = d.Close() }()
	list, err := d.List(t.Context())
	if err != nil || len(list) != 1 || list[0].Info().PID != pid {
		t.Fatalf("%v, %v", list, err)
	}
	// The other driver's own sandboxes are none of this one's, nor the other way.
	if others, err := server.List(t.Context()); err != nil || len(others) != 0 {
		t.Errorf("%v, %v", others, err)
	}
	awaitServing(t, list[0])
	if err := list[0].Stop(t.Context(), time.Second); err != nil {
		t.Fatal(err)
	}
	d.pool.drain()
	if l := settled(t, cfg); len(l) > 0 {
		t.Errorf("left behind: %q", l)
	}
	if err := d.Forget(t.Context(), a.Digest); err != nil {
		t.Error(err)
	}
}

func TestOneDriverPerDirectory(t *testing.T) {
	needRoot(t)
	cfg := testConfig(t)
	d := open(t, cfg, nil)
	defer func() { _ = d.Close() }()
	other, err := New(cfg, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(t.Context()); !fault.Is(err, fault.CodeConflict) {
		t.Errorf("a second driver started: %v", err)
	}
}

// TestRunEnds checks the shape of a long-running part, and that nothing of an idle driver stays on the node.
func TestRunEnds(t *testing.T) {
	needRoot(t)
	cfg := testConfig(t)
	d, err := New(cfg, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	if _, err := d.List(t.Context()); err != nil {
		t.Errorf("List does not wait for the start: %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("%v", err)
	}
	c := newCgroups(cgroupRoot, cfg.ParentCgroup)
	for _, tree := range c.trees() {
		if _, err := os.Stat(c.in(tree, "")); err == nil {
			t.Errorf("the parent cgroup stays in %s", tree)
		}
	}
}

// TestStopFrozen: on v1 a frozen process gets no signal, SIGKILL included.
func TestStopFrozen(t *testing.T) {
	needRoot(t)
	cfg := testConfig(t)
	blobs := sandboxtest.Blobs(t.TempDir())
	d := open(t, cfg, blobs)
	defer func() { _ = d.Close() }()
	a := testImage(t, blobs)
	if _, err := d.Prepare(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	sb, err := d.Create(t.Context(), testSpec(a))
	if err != nil {
		t.Fatal(err)
	}
	awaitServing(t, sb)
	id := string(sb.Info().ID)
	dir, file, value := d.cgroup.dir("freezer", id), "freezer.state", "FROZEN"
	if d.cgroup.v2 {
		file, value = "cgroup.freeze", "1"
	}
	if err := write(dir, file, value); err != nil {
		t.Fatal(err)
	}
	if err := sb.Stop(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	if code := sb.Exit().Code; code == killedExit {
		t.Errorf("exit code %d: it was not thawed before SIGTERM", code)
	}
	if l := settled(t, cfg); len(l) > 0 {
		t.Errorf("left behind: %q", l)
	}
}

// TestForgetFreesTheDisk: what Prepare made is collected, after the last sandbox that uses it.
func TestForgetFreesTheDisk(t *testing.T) {
	needRoot(t)
	cfg := testConfig(t)
	blobs := sandboxtest.Blobs(t.TempDir())
	d := open(t, cfg, blobs)
	defer func() { _ = d.Close() }()
	a := testImage(t, blobs, sandboxtest.Layer(t, sandboxtest.Entry{Name: "big", Body: make([]byte, 1<<20), Mode: 0o644}))
	if _, err := d.Prepare(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	sb, err := d.Create(t.Context(), testSpec(a))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Forget(t.Context(), a.Digest); err != nil {
		t.Fatal(err)
	}
	count := func() int {
		n := 0
		err := d.client.SnapshotService(defaultSnapshotter).Walk(d.scope(t.Context()), func(context.Context, snapshots.Info) error { n++; return nil })
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := count(); n != 3 {
		t.Errorf("%d snapshots while a sandbox uses two layers and their view", n)
	}
	awaitServing(t, sb)
	if err := sb.Stop(t.Context(), time.Second); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); count() > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d snapshots stay", count())
		}
	}
	if n := len(d.Prepared()); n != 0 {
		t.Errorf("%d prepared", n)
	}
}

// TestPull pulls an image by its reference and runs it.
func TestPull(t *testing.T) {
	needRoot(t)
	cfg := testConfig(t)
	a := serveRegistry(t, "me", "secret", sandboxtest.BuildFunction(t))
	host, _, _ := strings.Cut(a.Reference, "/")
	cfg.DockerConfig = dockerConfig(t, host, "me", "secret")
	d := open(t, cfg, nil)
	defer func() { _ = d.Close() }()
	if img, err := d.Prepare(t.Context(), a); err != nil || img.Digest != a.Digest {
		t.Fatalf("%+v, %v", img, err)
	}
	sb, err := d.Create(t.Context(), testSpec(a))
	if err != nil {
		t.Fatal(err)
	}
	awaitServing(t, sb)
	if err := sb.Stop(t.Context(), time.Second); err != nil {
		t.Fatal(err)
	}
}

// TestShimDies: a sandbox whose shim is killed is reported as ended and leaves nothing.
func TestShimDies(t *testing.T) {
	needRoot(t)
	cfg := testConfig(t)
	blobs := sandboxtest.Blobs(t.TempDir())
	d := open(t, cfg, blobs)
	defer func() { _ = d.Close() }()
	a := testImage(t, blobs)
	if _, err := d.Prepare(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	sb, err := d.Create(t.Context(), testSpec(a))
	if err != nil {
		t.Fatal(err)
	}
	awaitServing(t, sb)
	found := shims(t, d, string(sb.Info().ID))
	if len(found) != 1 {
		t.Fatalf("%d shims", len(found))
	}
	if err := unix.Kill(found[0], unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case <-sb.Done():
	case <-time.After(20 * time.Second):
		t.Fatal("nobody notices")
	}
	if err := sb.Stop(t.Context(), time.Second); err != nil {
		t.Fatal(err)
	}
	if l := settled(t, cfg); len(l) > 0 {
		t.Errorf("left behind: %q", l)
	}
}

// TestReboot: what lay in RunDir is gone, and with it every process; the artifacts and the containers' records are still there.
func TestReboot(t *testing.T) {
	needRoot(t)
	cfg := testConfig(t)
	blobs := sandboxtest.Blobs(t.TempDir())
	d := open(t, cfg, blobs)
	a := testImage(t, blobs)
	if _, err := d.Prepare(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	sb, err := d.Create(t.Context(), testSpec(a))
	if err != nil {
		t.Fatal(err)
	}
	id := string(sb.Info().ID)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	// The shim first, so that it cannot write down the exit.
	for _, p := range shims(t, d, id) {
		if err := unix.Kill(p, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	d.cgroup.kill(id)
	for _, err := range []error{
		d.cgroup.remove(id), unmount(filepath.Join(cfg.bundleRoot(), id, "rootfs")), d.scratch(id).remove(), os.RemoveAll(cfg.RunDir),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}

	d = open(t, cfg, blobs)
	defer func() { _ = d.Close() }()
	list, err := d.List(t.Context())
	if err != nil || len(list) != 1 {
		t.Fatalf("%v, %v", list, err)
	}
	if info := list[0].Info(); string(info.Record) != "r" || info.PID != 0 {
		t.Errorf("%+v", info)
	}
	if e := list[0].Exit(); e.Code != unknownExit {
		t.Errorf("%+v", e)
	}
	if err := list[0].Stop(t.Context(), time.Second); err != nil {
		t.Fatal(err)
	}
	if sb, err = d.Create(t.Context(), testSpec(a)); err != nil {
		t.Fatal(err)
	}
	awaitServing(t, sb)
	if err := sb.Stop(t.Context(), time.Second); err != nil {
		t.Fatal(err)
	}
	if l := settled(t, cfg); len(l) > 0 {
		t.Errorf("left behind: %q", l)
	}
}

// TestBurst makes many sandboxes at once.
func TestBurst(t *testing.T) {
	needRoot(t)
	cfg := testConfig(t)
	blobs := sandboxtest.Blobs(t.TempDir())
	d := open(t, cfg, blobs)
	defer func() { _ = d.Close() }()
	a := testImage(t, blobs)
	if _, err := d.Prepare(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	const n = 24
	var all errgroup.Group
	for range n {
		all.Go(func() error {
			_, err := d.Create(t.Context(), testSpec(a))
			return err
		})
	}
	if err := all.Wait(); err != nil {
		t.Fatal(err)
	}
	list, err := d.List(t.Context())
	if err != nil || len(list) != n {
		t.Fatalf("%d, %v", len(list), err)
	}
	for _, sb := range list {
		awaitServing(t, sb)
		all.Go(func() error { return sb.Stop(t.Context(), 0) })
	}
	if err := all.Wait(); err != nil {
		t.Fatal(err)
	}
	if l := settled(t, cfg); len(l) > 0 {
		t.Errorf("left behind: %q", l)
	}
}

// shims lists the processes that are the instance's shim.
func shims(t testing.TB, d *Driver, id string) []int {
	t.Helper()
	procs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var out []int
	for _, p := range procs {
		raw, _ := os.ReadFile(p)
		if got, ok := d.shimOf(raw); ok && got == id {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(p)))
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, pid)
		}
	}
	return out
}
