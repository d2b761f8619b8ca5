//go:build linux && e2e

package containerd

import (
	"testing"

	"github.com/tatami-faas/tatami/runtime/sandbox"
	"github.com/tatami-faas/tatami/runtime/sandboxtest"
	"github.com/tatami-faas/tatami/tests/escape"
)

// TestEscape: a hostile function does not get out of a sandbox that the OCI runtime makes.
func TestEscape(t *testing.T) {
	needRoot(t)
	if !escape.OwnNetwork(t) {
		return
	}
	escaping(t, 0, func(d *Driver) sandbox.Driver { return d })
}

// TestEscapeAttach: nor out of one that was made ahead.
func TestEscapeAttach(t *testing.T) {
	needInit(t)
	if !escape.OwnNetwork(t) {
		return
	}
	escaping(t, 2, func(d *Driver) sandbox.Driver { return &attaching{Driver: d, t: t, odd: true} })
}

func escaping(t *testing.T, pool int, by func(*Driver) sandbox.Driver) {
	cfg := testConfig(t)
	cfg.SandboxPool = pool
	blobs := sandboxtest.Blobs(t.TempDir())
	d := open(t, cfg, blobs)
	defer func() { _ = d.Close() }()
	escape.Run(t, escape.Setup{
		Blobs: blobs, Driver: by(d), Dirs: []string{cfg.DataDir, cfg.RunDir}, Sockets: []string{cfg.engineSocket()},
	})
	d.pool.drain()
	if l := settled(t, cfg); len(l) > 0 {
		t.Errorf("left behind: %q", l)
	}
}
