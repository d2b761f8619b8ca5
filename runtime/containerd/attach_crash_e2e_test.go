//go:build linux && e2e

package containerd

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/runtime/sandbox"
	"github.com/tatami-faas/tatami/runtime/sandboxtest"
)

// TestAttachKilled: SIGKILL at any moment of an attach leaves nothing that the next start with Stop does not remove, and what the next
// start finds running is the function.
func TestAttachKilled(t *testing.T) {
	needInit(t)
	cfg := testConfig(t)
	cfg.SandboxPool = 1
	killed(t, cfg, 20, 8*time.Millisecond)
}

// killed ends the process that makes a sandbox, so many times, at any moment until a while after it has begun with that.
func killed(t *testing.T, cfg Config, times int, within time.Duration) {
	blobs := sandboxtest.Blobs(t.TempDir())
	art := testImage(t, blobs)
	random := rand.New(rand.NewPCG(1, 2))
	running, ended, none := 0, 0, 0
	for range times {
		spec := testSpec(art)
		after := time.Duration(random.Int64N(int64(within)))
		crash(t, childJob{cfg, string(blobs), spec, sandboxtest.StepCreate}, after)
		// What this driver makes ahead would hide what stays of the other's.
		plain := cfg
		plain.SandboxPool, plain.Precreated = 0, 0
		d := open(t, plain, blobs)
		list, err := d.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case len(list) == 0:
			none++
		case len(list) > 1 || list[0].Info().ID != spec.ID || string(list[0].Info().Record) != "r":
			t.Errorf("killed after %s: %d sandboxes, the first %+v", after, len(list), list[0].Info())
		case list[0].Info().PID != 0:
			running++
			awaitServing(t, list[0])
			if got := ask(t, list[0], "/sees"); !strings.Contains(got, `"UID":65532`) {
				t.Errorf("killed after %s: %s", after, got)
			}
		default:
			ended++
		}
		for _, sb := range list {
			if err := sb.Stop(t.Context(), 0); err != nil {
				t.Errorf("killed after %s: stop: %v", after, err)
			}
		}
		if l := settled(t, cfg); len(l) > 0 {
			t.Errorf("killed after %s: left behind: %q", after, l)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("found running %d, ended %d, without a sandbox %d", running, ended, none)
}

// TestAttachMany: no thread stays in a sandbox, no output goes to another's, and each function is the one that was asked for.
func TestAttachMany(t *testing.T) {
	cfg, d, art := openPool(t, 4)
	defer func() { _ = d.Close() }()
	const rounds, width = 50, 4
	for range rounds {
		awaitPool(t, d, width)
		var all errgroup.Group
		for range width {
			all.Go(func() error { return oneOfMany(t, d, art) })
		}
		if err := all.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	// A thread that was given up ends a moment after its work.
	var strange []string
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if strange = strangers(t); len(strange) == 0 {
			break
		}
	}
	if len(strange) > 0 {
		t.Errorf("threads in other namespaces: %q", strange)
	}
	d.pool.drain()
	if l := settled(t, cfg); len(l) > 0 {
		t.Errorf("left behind: %q", l)
	}
}

func oneOfMany(t *testing.T, d *Driver, art functions.Artifact) error {
	spec := testSpec(art)
	sb, err := d.Create(t.Context(), spec)
	if err != nil {
		return err
	}
	if info := sb.Info(); info.StartPath != pathAttach {
		return fmt.Errorf("started by the path %s: %s", info.StartPath, info.PathReason)
	}
	awaitServing(t, sb)
	ask(t, sb, "/say", "text", "I am "+string(spec.ID))
	want := "listening\nI am " + string(spec.ID) + "\n"
	var out []byte
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end) && string(out) != want; time.Sleep(time.Millisecond) {
		if out, err = os.ReadFile(sb.Info().Stdout); err != nil {
			return err
		}
	}
	if string(out) != want {
		return fmt.Errorf("the output of %s: %q", spec.ID, out)
	}
	if got := ask(t, sb, "/sees"); !strings.Contains(got, `"Hostname":"`+string(spec.ID)+`"`) {
		return fmt.Errorf("%s sees %s", spec.ID, got)
	}
	return sb.Stop(t.Context(), 0)
}

// strangers lists this process's threads that are in a namespace other than the node's, or have a root of their own.
func strangers(t *testing.T) []string {
	t.Helper()
	var out []string
	threads, err := filepath.Glob("/proc/self/task/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, thread := range threads {
		for _, link := range []string{"ns/mnt", "ns/uts", "ns/net", "ns/pid", "ns/ipc", "ns/cgroup", "root"} {
			// The test is started by a process in the node's namespaces.
			want, err := os.Readlink(fmt.Sprintf("/proc/%d/%s", os.Getppid(), link))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := os.Readlink(filepath.Join(thread, link)); err == nil && got != want {
				out = append(out, thread+" "+got)
			}
		}
	}
	return out
}

// TestAttachOtherwise: what cannot be attached is made by the OCI runtime, with the reason told.
func TestAttachOtherwise(t *testing.T) {
	needInit(t)
	cfg := testConfig(t)
	cfg.SandboxPool = 1
	blobs := sandboxtest.Blobs(t.TempDir())
	d := open(t, cfg, blobs)
	defer func() { _ = d.Close() }()
	fn := sandboxtest.BuildFunction(t)
	image := func(entries ...sandboxtest.Entry) functions.Artifact {
		return blobs.Put(t, sandboxtest.Image(t, v1.Config{Entrypoint: []string{"/testfn"}}, goruntime.GOARCH, fn, sandboxtest.Layer(t, entries...)))
	}
	create := func(spec sandbox.Spec, want string) {
		t.Helper()
		if _, err := d.Prepare(t.Context(), spec.Artifact); err != nil {
			t.Fatal(err)
		}
		sb, err := d.Create(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		awaitServing(t, sb)
		info := sb.Info()
		if path := info.StartPath; (path == pathAttach) != (want == "") || !strings.Contains(info.PathReason, want) {
			t.Errorf("path %s, reason %q, not %q", path, info.PathReason, want)
		}
		if got := ask(t, sb, "/read", "path", "/etc/hosts"); !strings.Contains(got, string(spec.ID)) {
			t.Errorf("hosts: %q", got)
		}
		if err := sb.Stop(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
	}
	linked := image(sandboxtest.Entry{Name: "etc/", Mode: 0o755}, sandboxtest.Entry{Name: "etc/resolv.conf", Link: "../run/resolv.conf", Mode: 0o777})
	evil := image(sandboxtest.Entry{Name: "etc", Link: "/", Mode: 0o777})
	for range 2 {
		awaitPool(t, d, 1)
		create(testSpec(linked), "link")
	}
	if d.pool.waiting() != 1 {
		t.Error("a sandbox was spoilt for an image that is known not to fit")
	}
	awaitPool(t, d, 1)
	create(testSpec(evil), "link")
	ordinary := image(sandboxtest.Entry{Name: "file", Mode: 0o644})
	limitless := testSpec(ordinary)
	limitless.Limits.Ephemeral = 0
	create(limitless, "lacks a limit")

	// One that has died is replaced.
	awaitPool(t, d, 1)
	d.pool.mu.Lock()
	dead := d.pool.idle[0]
	d.pool.mu.Unlock()
	if err := unix.Kill(dead.box.info.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		d.pool.mu.Lock()
		replaced := len(d.pool.idle) == 1 && d.pool.idle[0] != dead
		d.pool.mu.Unlock()
		if replaced {
			break
		}
		if time.Now().After(end) {
			t.Fatal("a dead sandbox stays in the pool")
		}
	}
	create(testSpec(ordinary), "")

	d.pool.drain()
	create(testSpec(ordinary), "the pool is empty")
	if l := settled(t, cfg); len(l) > 0 {
		t.Errorf("left behind: %q", l)
	}
}

// TestAttachWaits: starts that find no sandbox left wait for those that are made, and are told why they were slower.
func TestAttachWaits(t *testing.T) {
	cfg, d, art := openPool(t, 1)
	defer func() { _ = d.Close() }()
	awaitPool(t, d, 1)
	all := make([]sandbox.Sandbox, 8)
	var starts errgroup.Group
	for i := range all {
		starts.Go(func() (err error) {
			all[i], err = d.Create(t.Context(), testSpec(art))
			return err
		})
	}
	if err := starts.Wait(); err != nil {
		t.Fatal(err)
	}
	waited := uint64(0)
	for _, sb := range all {
		awaitServing(t, sb)
		info := sb.Info()
		if info.StartPath != pathAttach {
			t.Errorf("path %s, reason %q", info.StartPath, info.PathReason)
		}
		if strings.Contains(info.PathReason, poolEmpty) {
			waited++
		}
		if err := sb.Stop(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
	}
	if counted := d.Pool().Starts[StartPath{pathAttach, "pool-empty"}]; waited == 0 || counted != waited {
		t.Errorf("%d waited, %d are counted", waited, counted)
	}
	d.drainPools()
	if l := settled(t, cfg); len(l) > 0 {
		t.Errorf("left behind: %q", l)
	}
}
