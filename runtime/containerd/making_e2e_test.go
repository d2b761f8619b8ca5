//go:build linux && e2e

package containerd

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/runtime/sandboxtest"
)

// TestPrecreatedGivesWay: what makes a container ahead has a low share of the processors until that is made, and the container until it is started.
func TestPrecreatedGivesWay(t *testing.T) {
	needInit(t)
	cfg := testConfig(t)
	cfg.Precreated = 1
	blobs := sandboxtest.Blobs(t.TempDir())
	d := open(t, cfg, blobs)
	defer func() { _ = d.Close() }()
	spec := testSpec(testImage(t, blobs))
	if _, err := d.Prepare(t.Context(), spec.Artifact); err != nil {
		t.Fatal(err)
	}
	shares := func(id string) int64 {
		t.Helper()
		file := "cpu.shares"
		if d.cgroup.v2 {
			file = "cpu.weight"
		}
		n, err := number(d.cgroup.dir("cpu", id), file)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if !d.precreated.expect(t, spec) {
		t.Fatal("no container can be made ahead")
	}
	d.precreated.mu.Lock()
	waiting := d.precreated.kinds[0].waits.sid
	d.precreated.mu.Unlock()
	if procs, err := os.ReadFile(filepath.Join(d.cgroup.aside(), "cgroup.procs")); err != nil || len(procs) > 0 {
		t.Errorf("its shim gives way for good: %q, %v", procs, err)
	}
	low := shares(waiting)
	sb, err := d.Create(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if own := shares(waiting); sb.Info().StartPath != pathPrecreated || own != shares("")*spec.Limits.CPU/1000 && !d.cgroup.v2 || own <= 4*low {
		t.Errorf("path %s, its share %d, and %d before", sb.Info().StartPath, own, low)
	}
	if err := sb.Stop(t.Context(), 0); err != nil {
		t.Error(err)
	}
	// With the place in which to give way gone, none can be made that does.
	d.precreated.drain()
	ctx := d.scope(t.Context())
	art, err := d.artifact(ctx, spec.Artifact.Digest)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.precreate(ctx, spec, art, true); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it was made without giving way: %v", err)
	}
	b, err := d.precreate(ctx, spec, art, false)
	if err != nil {
		t.Fatal(err)
	}
	d.discard(ctx, b)
	if l := settled(t, cfg); len(l) > 0 {
		t.Errorf("left behind: %q", l)
	}
}

// BenchmarkBesideMaking measures starts of the pool, spaced by 100 ms, from Create to the first answer: alone, and while a container is made
// ahead, of runc's and of gVisor's, at the low share and at that of everything else. In turns, so that what else runs on the machine meets all alike.
func BenchmarkBesideMaking(b *testing.B) {
	needInit(b)
	cfg := testConfig(b)
	cfg.SandboxPool, cfg.Precreated = 4, 1
	blobs := sandboxtest.Blobs(b.TempDir())
	d := open(b, cfg, blobs)
	defer func() { _ = d.Close() }()
	art := testImage(b, blobs)
	if _, err := d.Prepare(b.Context(), art); err != nil {
		b.Fatal(err)
	}
	ctx := d.scope(b.Context())
	prepared, err := d.artifact(ctx, art.Digest)
	if err != nil {
		b.Fatal(err)
	}
	took, made := map[string][]time.Duration{}, map[string][]time.Duration{}
	n := 0
	once := func(name string, gvisor, low bool) {
		awaitPool(b, d, 4)
		time.Sleep(100 * time.Millisecond)
		ready := make(chan *box, 1)
		if name != "alone" {
			spec := testSpec(art)
			spec.GVisor = gvisor
			begun := time.Now()
			go func() {
				waiting, err := d.precreate(ctx, spec, prepared, low)
				if err != nil {
					b.Error(err)
				}
				made[name] = append(made[name], time.Since(begun))
				ready <- waiting
			}()
			// At another moment of the making each time.
			time.Sleep(time.Duration(n%8) * 10 * time.Millisecond)
		}
		begun := time.Now()
		sb, err := d.Create(b.Context(), testSpec(art))
		if err != nil {
			b.Fatal(err)
		}
		firstAnswer(b, sb.Dial)
		took[name] = append(took[name], time.Since(begun))
		if got := sb.Info().StartPath; got != pathAttach {
			b.Fatalf("started by the path %s", got)
		}
		if name != "alone" {
			d.discard(ctx, <-ready)
		}
		if err := sb.Stop(b.Context(), 0); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		once("alone", false, false)
		once("runc-low", false, true)
		once("runc-even", false, false)
		once("gvisor-low", true, true)
		once("gvisor-even", true, false)
		n++
	}
	for name, all := range took {
		slices.Sort(all)
		b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, name+"_p50_ms")
		b.ReportMetric(float64(all[len(all)*9/10].Microseconds())/1000, name+"_p90_ms")
	}
	for name, all := range made {
		slices.Sort(all)
		b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, name+"_making_p50_ms")
	}
}
