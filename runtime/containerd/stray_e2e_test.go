//go:build linux && e2e

package containerd

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
	"github.com/tatami-faas/tatami/runtime/sandbox"
	"github.com/tatami-faas/tatami/runtime/sandboxtest"
)

// ofTheNode is what no function may read.
const ofTheNode = "of the node"

// TestStrayDirectory: a directory that whoever started this process has left open is no way out, neither for a function whose image begins in
// it, nor for one that puts a link to it where a further process will begin.
func TestStrayDirectory(t *testing.T) {
	needInit(t)
	cfg := testConfig(t)
	cfg.SandboxPool = 1
	link := strayDirectory(t)
	blobs := sandboxtest.Blobs(t.TempDir())
	d := open(t, cfg, blobs)
	defer func() { _ = d.Close() }()
	fn := sandboxtest.BuildFunction(t)
	prepared := func(dir string, entries ...sandboxtest.Entry) functions.Artifact {
		img := sandboxtest.Image(t, v1.Config{Entrypoint: []string{"/testfn"}, WorkingDir: dir}, goruntime.GOARCH, fn, sandboxtest.Layer(t, entries...))
		art := blobs.Put(t, img)
		if _, err := d.Prepare(t.Context(), art); err != nil {
			t.Fatal(err)
		}
		return art
	}
	begins := prepared(link, sandboxtest.Entry{Name: "x", Mode: 0o644})
	moves := prepared("/data/here", sandboxtest.Entry{Name: "data/", Mode: 0o777})
	t.Run("attach", func(t *testing.T) {
		awaitPool(t, d, 1)
		beginsOutside(t, d, testSpec(begins))
		awaitPool(t, d, 1)
		movesOutside(t, d, testSpec(moves), link)
	})
	d.drainPools()
	t.Run("containerd", func(t *testing.T) {
		beginsOutside(t, d, testSpec(begins))
		movesOutside(t, d, testSpec(moves), link)
	})
	if l := settled(t, cfg); len(l) > 0 {
		t.Errorf("left behind: %q", l)
	}
}

// strayDirectory opens a directory of the node, with a file that anybody may read, as a careless parent of this process would, and returns the link
// by which a process that has it finds it.
func strayDirectory(t *testing.T) (link string) {
	t.Helper()
	dir := t.TempDir()
	for at := dir; at != "/tmp" && at != "/"; at = filepath.Dir(at) {
		if err := os.Chmod(at, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte(ofTheNode), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// Out of the way of those that programs are given, and without the flag that closes it.
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD, 100)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fmt.Sprintf("/proc/self/fd/%d", fd)
}

// beginsOutside starts a function whose working directory is the stray one's link.
func beginsOutside(t *testing.T, d *Driver, spec sandbox.Spec) {
	t.Helper()
	sb, err := d.Create(t.Context(), spec)
	if fault.Is(err, fault.CodeFunctionNotReady) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer stopped(t, sb)
	awaitServing(t, sb)
	for _, name := range []string{"secret", "/proc/self/cwd/secret"} {
		if got := ask(t, sb, "/read", "path", name); strings.Contains(got, ofTheNode) {
			t.Errorf("the function reads %s: %q", name, got)
		}
	}
}

// movesOutside starts a process in a function that has put the link in its working directory's place.
func movesOutside(t *testing.T, d *Driver, spec sandbox.Spec, link string) {
	t.Helper()
	sb, err := d.Create(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	defer stopped(t, sb)
	awaitServing(t, sb)
	// As the function may do it.
	at := fmt.Sprintf("/proc/%d/root/data/", sb.Info().PID)
	if err := os.Rename(at+"here", at+"away"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(link, at+"here"); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	code, err := sb.Exec(t.Context(), []string{"/testfn", "read", "secret"}, nil, &out, &out)
	if err == nil && code == 0 || strings.Contains(out.String(), ofTheNode) {
		t.Errorf("the process reads %q: %d, %v", &out, code, err)
	}
}

func stopped(t *testing.T, sb sandbox.Sandbox) {
	t.Helper()
	if err := sb.Stop(context.Background(), 0); err != nil {
		t.Error(err)
	}
}
