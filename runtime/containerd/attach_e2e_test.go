//go:build linux && e2e

package containerd

import (
	"context"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/runtime/attach"
	"github.com/tatami-faas/tatami/runtime/sandbox"
	"github.com/tatami-faas/tatami/runtime/sandboxtest"
)

func needInit(t testing.TB) {
	t.Helper()
	needRoot(t)
	if _, err := attach.Init(); err != nil {
		t.Fatalf("%v", err)
	}
}

// waiting is how many sandboxes wait for a function.
func (p *pool) waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.idle)
}

// awaitPool returns once so many sandboxes wait.
func awaitPool(t testing.TB, d *Driver, n int) {
	t.Helper()
	d.pool.await(t, n)
}

func (p *pool) await(t testing.TB, n int) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); p.waiting() < n; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d sandboxes wait, not %d: %s", p.waiting(), n, p.empty)
		}
	}
}

// poolFor is the pool that a sandbox with the specification comes from.
func (d *Driver) poolFor(s sandbox.Spec) *pool {
	art, err := d.artifact(d.scope(d.ctx), s.Artifact.Digest)
	if err != nil {
		// It cannot be started in any.
		return d.pool
	}
	return d.poolOf(art)
}

// attaching is a driver whose every start finds a waiting sandbox, and must take it; with odd it need not for an image that does not fit.
type attaching struct {
	*Driver
	t   testing.TB
	odd bool
	mu  sync.Mutex
}

func (a *attaching) Create(ctx context.Context, s sandbox.Spec) (sandbox.Sandbox, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.poolFor(s).await(a.t, 1)
	sb, err := a.Driver.Create(ctx, s)
	if err == nil && sb.Info().StartPath != pathAttach && (!a.odd || !strings.Contains(sb.Info().PathReason, attach.ErrPlace.Error())) {
		a.t.Errorf("started by the path %s: %s", sb.Info().StartPath, sb.Info().PathReason)
	}
	return sb, err
}

// TestConformanceAttach is TestConformance where every sandbox was made ahead.
func TestConformanceAttach(t *testing.T) {
	conformanceAttach(t, testConfig(t), false)
}

// TestConformanceAttachMapped is TestConformanceMapped where every sandbox was made ahead.
func TestConformanceAttachMapped(t *testing.T) {
	conformanceAttach(t, mappedConfig(t), true)
}

func conformanceAttach(t *testing.T, cfg Config, mapped bool) {
	needInit(t)
	cfg.SandboxPool = 2
	blobs := sandboxtest.Blobs(t.TempDir())
	var driver *Driver
	sandboxtest.Run(t, sandboxtest.Setup{
		Blobs: blobs, Mapped: mapped,
		Open: func(testing.TB) sandbox.Driver {
			driver = open(t, cfg, blobs)
			return &attaching{Driver: driver, t: t}
		},
		Crash: func(t testing.TB, spec sandbox.Spec, in sandboxtest.Step, after time.Duration) *sandbox.Info {
			return crash(t, childJob{cfg, string(blobs), spec, in}, after)
		},
		Left: func(t testing.TB) []string {
			defer emptied(driver)()
			return settled(t, cfg)
		},
	})
	if entries, err := os.ReadDir(cfg.attachments()); err != nil || len(entries) > 0 {
		t.Errorf("attachments stay: %v, %v", entries, err)
	}
}

// emptied empties the pools, and returns what fills again those that were filled.
func emptied(d *Driver) (fill func()) {
	d.mapped.mu.Lock()
	opened := d.mapped.opened
	d.mapped.mu.Unlock()
	d.drainPools()
	return func() {
		d.pool.open()
		if opened {
			d.mapped.open()
		}
	}
}
