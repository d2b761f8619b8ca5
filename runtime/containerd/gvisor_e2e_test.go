//go:build linux && e2e

package containerd

import (
	"context"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tatami-faas/tatami/runtime/sandbox"
	"github.com/tatami-faas/tatami/runtime/sandboxtest"
)

// guarded is a driver all of whose sandboxes are gVisor's.
type guarded struct{ *Driver }

func (g guarded) Create(ctx context.Context, s sandbox.Spec) (sandbox.Sandbox, error) {
	s.GVisor = true
	return g.Driver.Create(ctx, s)
}

// TestConformanceGVisor is TestConformance where gVisor answers the system calls.
func TestConformanceGVisor(t *testing.T) {
	needRoot(t)
	if _, err := FindProgram("runsc"); err != nil {
		t.Fatalf("this test runs gVisor: %v; run 'make deps-test'", err)
	}
	owner := func() (uint32, uint32) {
		var st unix.Stat_t
		if err := unix.Stat(os.DevNull, &st); err != nil {
			t.Fatal(err)
		}
		return st.Uid, st.Gid
	}
	uid, gid := owner()
	defer func() {
		if u, g := owner(); u != uid || g != gid {
			t.Errorf("%s belongs to %d:%d now, and to %d:%d before", os.DevNull, u, g, uid, gid)
		}
	}()
	cfg := testConfig(t)
	blobs := sandboxtest.Blobs(t.TempDir())
	sandboxtest.Run(t, sandboxtest.Setup{
		Blobs: blobs, Guest: true,
		Open: func(t testing.TB) sandbox.Driver { return guarded{open(t, cfg, blobs)} },
		Crash: func(t testing.TB, spec sandbox.Spec, in sandboxtest.Step, after time.Duration) *sandbox.Info {
			spec.GVisor = true
			return crash(t, childJob{cfg, string(blobs), spec, in}, after)
		},
		Left: func(t testing.TB) []string { return settled(t, cfg) },
	})
}
