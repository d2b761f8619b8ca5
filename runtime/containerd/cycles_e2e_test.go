//go:build linux && e2e

package containerd

import (
	"context"
	"flag"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	goruntime "runtime"
	"runtime/debug"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"golang.org/x/sys/unix"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/runtime/sandbox"
	"github.com/tatami-faas/tatami/runtime/sandboxtest"
	"github.com/tatami-faas/tatami/tests/escape"
)

var (
	cycles     = flag.Int("cycles.n", 64, "how many sandboxes are started and ended")
	cyclesSeed = flag.Uint64("cycles.seed", 1, "what is killed when")
)

const (
	// cyclesWarm are the cycles after which nothing may grow any more, cyclesLook those between two looks.
	cyclesWarm, cyclesLook = 16, 500
	// cyclesHeld are those before a look in which the garbage collector is held back: it closes files that were forgotten.
	cyclesHeld = 48
	// cyclesHeap is what the heap may grow by over all cycles: less than one kept record each in the long form.
	cyclesHeap = 8 << 20
)

// TestCycles: sandboxes that are started and ended, with egress and without, with kills of everything at random, leave nothing and hold nothing.
func TestCycles(t *testing.T) {
	needInit(t)
	// Links and rules belong to a network of the test's own.
	if !escape.OwnNetwork(t) {
		return
	}
	l := &cycling{t: t, cfg: testConfig(t), blobs: sandboxtest.Blobs(t.TempDir()), random: rand.New(rand.NewPCG(*cyclesSeed, 3))}
	l.cfg.SandboxPool, l.cfg.Precreated = 2, 2
	l.cfg.Egress.DNS = []netip.Addr{netip.MustParseAddr("198.51.100.1")}
	l.art = testImage(t, l.blobs)
	l.reopen()
	defer func() { _ = l.d.Close() }()
	var first holding
	defer debug.SetGCPercent(100)
	for i := range *cycles {
		if i >= cyclesWarm && (i+cyclesHeld)%cyclesLook == 0 || i == max(cyclesWarm, *cycles-cyclesHeld) {
			debug.SetGCPercent(-1)
		}
		l.once(i)
		if t.Failed() {
			t.Fatalf("in cycle %d of seed %d", i, *cyclesSeed)
		}
		if i+1 == cyclesWarm {
			first = l.holds(nil)
		} else if (i+1)%cyclesLook == 0 && i+1 < *cycles {
			l.compare(first, l.holds(&first))
			t.Logf("%d cycles: %+v", i+1, l.kinds)
		}
	}
	last := l.holds(&first)
	l.compare(first, last)
	t.Logf("%+v; held at first %+v, at last %+v", l.kinds, first, last)
	if len(l.kinds) < 5 {
		t.Errorf("not every way to end was tried: %v", l.kinds)
	}
}

// cycling is a driver whose sandboxes are killed.
type cycling struct {
	t      *testing.T
	cfg    Config
	blobs  sandboxtest.Blobs
	art    functions.Artifact
	d      *Driver
	random *rand.Rand
	kinds  map[string]int
	// opens counts the drivers that were opened: containerd's exchange of events has no end, and keeps a goroutine of each.
	opens int
}

func (l *cycling) reopen() {
	l.opens++
	l.d = open(l.t, l.cfg, l.blobs)
	if _, err := l.d.Prepare(l.t.Context(), l.art); err != nil {
		l.t.Fatal(err)
	}
}

// once is one cycle: a start, and an end of one of the kinds.
func (l *cycling) once(i int) {
	l.t.Helper()
	if l.kinds == nil {
		l.kinds = map[string]int{}
	}
	count := func(kind string) { l.kinds[kind]++ }
	if i%50 == 10 {
		count("worker killed")
		l.crash()
		return
	}
	spec := testSpec(l.art)
	if spec.Egress = l.random.IntN(4) == 0; spec.Egress {
		count("with egress")
	}
	if i%3 == 0 {
		// That is for no sandbox of the pool.
		spec.Limits.Ephemeral = 0
	}
	if l.random.IntN(5) == 0 {
		count("start called off")
		ctx, cancel := context.WithTimeout(l.t.Context(), time.Duration(l.random.IntN(40))*time.Millisecond)
		sb, err := l.d.Create(ctx, spec)
		cancel()
		if err == nil {
			l.stop(sb, 0)
		}
		return
	}
	sb, err := l.d.Create(l.t.Context(), spec)
	if err != nil {
		l.t.Fatal(err)
	}
	count("by " + sb.Info().StartPath)
	switch l.random.IntN(5) {
	case 0:
		count("stopped before it served")
		l.stop(sb, 0)
	case 1:
		count("killed")
		awaitServing(l.t, sb)
		_ = unix.Kill(sb.Info().PID, unix.SIGKILL)
		exited(l.t, sb)
		l.stop(sb, 0)
	case 2:
		count("shim killed")
		awaitServing(l.t, sb)
		l.killShim(sb)
		exited(l.t, sb)
		l.stop(sb, 0)
	case 3:
		count("stop interrupted")
		awaitServing(l.t, sb)
		ctx, cancel := context.WithTimeout(l.t.Context(), time.Duration(l.random.IntN(10))*time.Millisecond)
		_ = sb.Stop(ctx, 0)
		cancel()
		l.stop(sb, 0)
	default:
		count("stopped")
		awaitServing(l.t, sb)
		l.stop(sb, time.Second)
	}
}

func (l *cycling) stop(sb sandbox.Sandbox, grace time.Duration) {
	l.t.Helper()
	if err := sb.Stop(context.Background(), grace); err != nil {
		l.t.Errorf("stop: %v", err)
	}
}

// crash ends another process that holds the driver, at any time of a sandbox's life.
func (l *cycling) crash() {
	l.t.Helper()
	if err := l.d.Close(); err != nil {
		l.t.Fatal(err)
	}
	step := []sandboxtest.Step{sandboxtest.StepCreate, sandboxtest.StepServe, sandboxtest.StepStop}[l.random.IntN(3)]
	spec := testSpec(l.art)
	spec.Egress = l.random.IntN(2) == 0
	crash(l.t, childJob{l.cfg, string(l.blobs), spec, step}, time.Duration(l.random.IntN(40))*time.Millisecond)
	l.reopen()
	list, err := l.d.List(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	for _, sb := range list {
		l.stop(sb, 0)
	}
}

// killShim ends the process that watches over the sandbox's; where there is none, the sandbox's own.
func (l *cycling) killShim(sb sandbox.Sandbox) {
	l.t.Helper()
	b, ok := sb.(*box)
	if !ok {
		l.t.Fatalf("%T", sb)
	}
	target := sb.Info().PID
	for pid, sid := range l.d.shims() {
		if sid == b.sid {
			target = pid
		}
	}
	_ = unix.Kill(target, unix.SIGKILL)
}

func exited(t *testing.T, sb sandbox.Sandbox) {
	t.Helper()
	select {
	case <-sb.Done():
	case <-time.After(30 * time.Second):
		t.Fatal("the process's end is not noticed")
	}
}

// holding is what this process and the node hold when no sandbox is there.
type holding struct {
	Files, Goroutines, Snapshots, Containers, Devices int
	Heap                                              uint64
}

// holds drains the pool, checks that nothing is left, and counts, once there are no more connections and goroutines than at first: they end by
// themselves, some time after what they were for.
func (l *cycling) holds(first *holding) holding {
	l.t.Helper()
	l.d.pool.drain()
	defer l.d.pool.open()
	defer emptiedPrecreated(l.d)()
	if left := settled(l.t, l.cfg); len(left) > 0 {
		l.t.Errorf("left behind: %q", left)
	}
	var h holding
	devices, err := net.Interfaces()
	if err != nil {
		l.t.Fatal(err)
	}
	h.Devices = len(devices)
	ctx := l.d.scope(l.t.Context())
	if err := l.d.client.SnapshotService(defaultSnapshotter).Walk(ctx, func(context.Context, snapshots.Info) error { h.Snapshots++; return nil }); err != nil {
		l.t.Fatal(err)
	}
	containers, err := l.d.client.ContainerService().List(ctx)
	if err != nil {
		l.t.Fatal(err)
	}
	h.Containers = len(containers)
	// Before the garbage collector closes what was forgotten.
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			l.t.Fatal(err)
		}
		h.Files, h.Goroutines = len(fds), goruntime.NumGoroutine()-l.opens
		if first == nil || h.Files <= first.Files+cyclesSlack && h.Goroutines <= first.Goroutines+cyclesSlack || time.Now().After(end) {
			break
		}
	}
	debug.SetGCPercent(100)
	goruntime.GC()
	goruntime.GC()
	var m goruntime.MemStats
	goruntime.ReadMemStats(&m)
	h.Heap = m.HeapAlloc
	return h
}

// cyclesSlack is how many files and goroutines may come and go with connections that end by themselves.
const cyclesSlack = 8

// compare holds what is held against what was held at first.
func (l *cycling) compare(first, now holding) {
	l.t.Helper()
	if now.Files > first.Files+cyclesSlack || now.Goroutines > first.Goroutines+cyclesSlack || now.Snapshots > first.Snapshots || now.Containers > 0 ||
		now.Devices > first.Devices || now.Heap > first.Heap+cyclesHeap {
		var stacks strings.Builder
		_ = pprof.Lookup("goroutine").WriteTo(&stacks, 1)
		l.t.Errorf("more is held than at first:\nnow   %+v\nfirst %+v\n%s", now, first, &stacks)
	}
}
