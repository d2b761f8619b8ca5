//go:build linux

package containerd

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/fault"
)

// put into the fake tree what the kernel would, once a file holds a text.
func once(t *testing.T, root, file, holds, then, text string) {
	t.Helper()
	done := make(chan struct{})
	t.Cleanup(func() { <-done })
	go func() {
		defer close(done)
		for t.Context().Err() == nil {
			if b, err := os.ReadFile(filepath.Join(root, file)); err == nil && string(b) == holds {
				if err := os.WriteFile(filepath.Join(root, then), []byte(text), 0o644); err != nil {
					t.Error(err)
				}
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
}

func TestFreezeV1(t *testing.T) {
	t.Parallel()
	const state = "freezer/p/ins/freezer.state"
	root := tree(t, map[string]string{state: "THAWED\n"})
	c := &cgroups{root: root, parent: "/p"}
	if err := c.freeze(t.Context(), "ins"); err != nil || read(t, root, state) != "FROZEN" {
		t.Errorf("%q, %v", read(t, root, state), err)
	}
	if err := c.thaw("ins"); err != nil || read(t, root, state) != "THAWED" {
		t.Errorf("%q, %v", read(t, root, state), err)
	}
}

func TestFreezeV2(t *testing.T) {
	t.Parallel()
	files := map[string]string{
		"p/ins/cgroup.freeze": "0\n", "p/ins/cgroup.events": "populated 1\nfrozen 0\n",
		"p/ins/memory.current": "5000000\n", "p/ins/memory.reclaim": "",
	}
	root := tree(t, files)
	c := &cgroups{root: root, parent: "/p", v2: true}
	once(t, root, "p/ins/cgroup.freeze", "1", "p/ins/cgroup.events", "populated 1\nfrozen 1\n")
	if err := c.freeze(t.Context(), "ins"); err != nil {
		t.Error(err)
	}
	if n, err := c.reclaim("ins"); n != 0 || err != nil || read(t, root, "p/ins/memory.reclaim") != "5000000" {
		t.Errorf("%d, %v, asked for %q", n, err, read(t, root, "p/ins/memory.reclaim"))
	}
	if err := c.thaw("ins"); err != nil || read(t, root, "p/ins/cgroup.freeze") != "0" {
		t.Errorf("%q, %v", read(t, root, "p/ins/cgroup.freeze"), err)
	}
	// One that never stands still is waited for until the end of the context, and woken from that wait.
	c = &cgroups{root: tree(t, files), parent: "/p", v2: true}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := c.freeze(ctx, "ins"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	bare := &cgroups{root: tree(t, map[string]string{"p/ins/memory.current": "1\n"}), parent: "/p", v2: true}
	if _, err := bare.reclaim("ins"); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a kernel that cannot reclaim: %v", err)
	}
}

func TestNoFreezer(t *testing.T) {
	t.Parallel()
	for _, v2 := range []bool{false, true} {
		d := &Driver{cgroup: &cgroups{root: t.TempDir(), parent: "/p", v2: v2}, cfg: Config{RunDir: t.TempDir()}}
		b := d.newBox(functions.NewInstanceID(), "", 0)
		if err := b.Freeze(t.Context()); !fault.Is(err, fault.CodeUnavailable) || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("v2 %v: %v", v2, err)
		}
		// Nothing stands still there.
		if err := b.Thaw(); err != nil {
			t.Errorf("v2 %v: %v", v2, err)
		}
	}
	d := &Driver{cgroup: &cgroups{root: t.TempDir(), parent: "/p"}}
	if _, err := d.cgroup.reclaim("ins"); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("reclaim on v1: %v", err)
	}
}
