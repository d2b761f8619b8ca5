//go:build linux && e2e

package containerd

import (
	"context"
	"flag"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/tatami-faas/tatami/runtime/sandbox"
	"github.com/tatami-faas/tatami/runtime/sandboxtest"
)

// precreatedWhole has the whole suites run on containers made ahead; else those of their parts in which the way of the start can make a difference.
var precreatedWhole = flag.Bool("precreated.whole", false, "run every part of the suites on containers made ahead")

// expect has a container made ahead for the specification, and returns once it waits; false: none can be made.
func (p *precreated) expect(t testing.TB, s sandbox.Spec) bool {
	t.Helper()
	art, err := p.d.artifact(p.d.scope(p.d.ctx), s.Artifact.Digest)
	if err != nil {
		return false
	}
	p.started(s, art)
	return p.await(t, s)
}

// await returns once a container waits for starts of the kind, or false once none could be made.
func (p *precreated) await(t testing.TB, s sandbox.Spec) bool {
	t.Helper()
	key := keyOf(s)
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		p.mu.Lock()
		for _, k := range p.kinds {
			if k.key == key && (k.waits != nil || k.pause > 0) {
				p.mu.Unlock()
				return k.waits != nil
			}
		}
		p.mu.Unlock()
		if time.Now().After(end) {
			t.Fatalf("no container waits for %+v", s)
		}
	}
}

// precreating is a driver whose every start finds a container that was made ahead, and must take it.
type precreating struct {
	*Driver
	t     testing.TB
	class func(*sandbox.Spec)
	mu    sync.Mutex
}

func (p *precreating) Create(ctx context.Context, s sandbox.Spec) (sandbox.Sandbox, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.class(&s)
	if len(s.Command) > 0 {
		// It may be one that cannot be started: nothing is made ahead for that.
		return p.Driver.Create(ctx, s)
	}
	expected := p.precreated.expect(p.t, s)
	sb, err := p.Driver.Create(ctx, s)
	if err == nil && !expected {
		p.t.Errorf("no container was made ahead for %+v", s)
	}
	if err == nil && sb.Info().StartPath != pathPrecreated {
		p.t.Errorf("started by the path %s: %s", sb.Info().StartPath, sb.Info().PathReason)
	}
	if err == nil && s.Activate && !sb.Info().Activated {
		p.t.Error("it was given no socket")
	}
	return sb, err
}

// emptiedPrecreated removes the containers that wait, and has none made until what it returns is called.
func emptiedPrecreated(d *Driver) (fill func()) {
	d.precreated.drain()
	return d.precreated.open
}

// TestPrecreatedViews: a function cannot tell, nor anybody who looks at it, whether its container was made ahead.
func TestPrecreatedViews(t *testing.T) {
	precreatedViews(t, testConfig(t), "user", "read-only")
}

// TestPrecreatedViewsMapped: nor the root of a user namespace.
func TestPrecreatedViewsMapped(t *testing.T) {
	precreatedViews(t, mappedConfig(t), "root")
}

// TestPrecreatedViewsGVisor: nor a function on gVisor's kernel.
func TestPrecreatedViewsGVisor(t *testing.T) {
	precreatedViews(t, testConfig(t), "gvisor")
}

// TestConformancePrecreated is TestConformance where every container was made ahead.
func TestConformancePrecreated(t *testing.T) {
	conformancePrecreated(t, testConfig(t), sandboxtest.Setup{}, func(*sandbox.Spec) {})
}

// TestConformancePrecreatedMapped is TestConformanceMapped where every container was made ahead.
func TestConformancePrecreatedMapped(t *testing.T) {
	conformancePrecreated(t, mappedConfig(t), sandboxtest.Setup{Mapped: true}, func(*sandbox.Spec) {})
}

// TestConformancePrecreatedGVisor is TestConformanceGVisor where every sandbox was made ahead.
func TestConformancePrecreatedGVisor(t *testing.T) {
	conformancePrecreated(t, testConfig(t), sandboxtest.Setup{Guest: true}, func(s *sandbox.Spec) { s.GVisor = true })
}

func conformancePrecreated(t *testing.T, cfg Config, setup sandboxtest.Setup, class func(*sandbox.Spec)) {
	needInit(t)
	cfg.Precreated = 2
	blobs := sandboxtest.Blobs(t.TempDir())
	var driver *Driver
	if setup.Blobs = blobs; !*precreatedWhole {
		if setup.Parts = []string{"Isolation", "Exec"}; !setup.Mapped && !setup.Guest {
			setup.Parts = append(setup.Parts, "Activation")
		}
	}
	setup.Open = func(testing.TB) sandbox.Driver {
		driver = open(t, cfg, blobs)
		return &precreating{Driver: driver, t: t, class: class}
	}
	setup.Crash = func(t testing.TB, spec sandbox.Spec, in sandboxtest.Step, after time.Duration) *sandbox.Info {
		class(&spec)
		return crash(t, childJob{cfg, string(blobs), spec, in}, after)
	}
	setup.Left = func(t testing.TB) []string {
		defer emptiedPrecreated(driver)()
		return settled(t, cfg)
	}
	sandboxtest.Run(t, setup)
}

// TestPrecreatedKilled: SIGKILL at any moment of the start of a container that was made ahead leaves nothing that the next start with Stop does not
// remove, and what the next start finds running is the function.
func TestPrecreatedKilled(t *testing.T) {
	needInit(t)
	cfg := testConfig(t)
	cfg.Precreated = 1
	killed(t, cfg, 8, 24*time.Millisecond)
}

// TestPrecreatedOnce: a container is used once, by a start of its own kind only, and goes with what it was made for.
func TestPrecreatedOnce(t *testing.T) {
	needInit(t)
	cfg := testConfig(t)
	cfg.Precreated = 2
	blobs := sandboxtest.Blobs(t.TempDir())
	d := open(t, cfg, blobs)
	defer func() { _ = d.Close() }()
	art := testImage(t, blobs)
	if _, err := d.Prepare(t.Context(), art); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	start := func(spec sandbox.Spec, path string) {
		t.Helper()
		sb, err := d.Create(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := sb.Stop(t.Context(), 0); err != nil {
				t.Error(err)
			}
		}()
		info, own := sb.Info(), sb.(*box).sid //nolint:forcetypeassert // it is this driver's
		if info.StartPath != path || !strings.Contains(info.PathReason, "no pool") {
			t.Errorf("path %s, reason %q, not %s", info.StartPath, info.PathReason, path)
		}
		if seen[own] {
			t.Errorf("the container %s is used again", own)
		}
		seen[own] = true
		awaitServing(t, sb)
		got := ask(t, sb, "/sees")
		for _, want := range append(spec.Env, string(spec.ID)) {
			if !strings.Contains(got, strconv.Quote(want)) {
				t.Errorf("it lacks %q: %s", want, got)
			}
		}
	}
	of := func(env string) sandbox.Spec {
		spec := testSpec(art)
		spec.Env = append(spec.Env, "OF="+env, "INSTANCE=the "+string(spec.ID))
		return spec
	}
	start(of("one"), pathContainerd)
	for range 2 {
		d.precreated.expect(t, of("one"))
		start(of("one"), pathPrecreated)
	}
	d.precreated.await(t, of("one"))
	start(of("two"), pathContainerd)
	less := of("one")
	less.Limits.PIDs--
	start(less, pathContainerd)
	// There is room for two kinds: the third in one go.
	d.precreated.await(t, less)
	d.precreated.await(t, of("two"))
	for end := time.Now().Add(20 * time.Second); d.precreated.count() != 2; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d containers wait", d.precreated.count())
		}
	}
	want := map[StartPath]uint64{{pathContainerd, "no-pool"}: 3, {pathPrecreated, "no-pool"}: 2}
	if diff := cmp.Diff(want, d.Pool().Starts); diff != "" {
		t.Errorf("counted starts (-want +got):\n%s", diff)
	}

	// One whose process has died is not taken for one that waits.
	d.precreated.mu.Lock()
	dead := d.precreated.kinds[0].waits
	d.precreated.mu.Unlock()
	if err := unix.Kill(dead.info.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); !dead.hasEnded(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not end")
		}
	}
	start(func() sandbox.Spec { s := of("one"); s.Limits.PIDs--; return s }(), pathContainerd)

	d.Release(art.Digest)
	for end := time.Now().Add(20 * time.Second); d.precreated.count() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d containers wait for starts of what is released", d.precreated.count())
		}
	}
	if l := settled(t, cfg); len(l) > 0 {
		t.Errorf("left behind: %q", l)
	}
	start(of("one"), pathContainerd)
	if err := d.Forget(t.Context(), art.Digest); err != nil {
		t.Error(err)
	}
	if l := settled(t, cfg); len(l) > 0 {
		t.Errorf("left behind: %q", l)
	}
}
