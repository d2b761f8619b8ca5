package worker_test

import (
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/worker"
)

// icy is a revision whose idle instances are frozen after a time.
func icy(after time.Duration, words ...string) *functions.Revision {
	rev := revision(words...)
	rev.Config.Scale.FreezeAfter = functions.Duration(after)
	return rev
}

func TestIdleInstanceIsFrozenAndThawed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	id := w.serving(icy(20 * time.Millisecond))
	box := w.driver.box(id)
	from := 0
	for range 3 {
		// Gateways hear of it, so that they let their connections go.
		w.await(from, "a frozen endpoint", func(m message) bool {
			return m.table != nil && len(m.table.Endpoints) == 1 && m.table.Endpoints[0].Instance == id && m.table.Endpoints[0].Frozen
		})
		at := w.await(from, "frozen", func(m message) bool { return says(m, id, functions.InstanceFrozen) })
		if !box.frost.frozen.Load() {
			t.Fatal("reported as frozen, and runs")
		}
		w.admit(id)
		if box.frost.frozen.Load() {
			t.Fatal("a slot was given of an instance that stands still")
		}
		w.await(at, "ready again", func(m message) bool { return says(m, id, functions.InstanceReady) })
		frozen := box.frost.freezes.Load()
		time.Sleep(60 * time.Millisecond)
		if box.frost.freezes.Load() != frozen {
			t.Fatal("frozen while a slot was held")
		}
		// It may be frozen again before this test goes on.
		from = len(w.messages())
		w.worker.Release(w.cfg.Node, id)
	}
	if count, took := w.worker.Thaws(); count != 3 || took <= 0 {
		t.Errorf("%d thaws in %s", count, took)
	}
	w.tell(id, bus.ActionStop, "scaled down", time.Time{})
	if got := w.state(id, functions.InstanceStopped); got.Reason != "scaled down" {
		t.Errorf("%+v", got)
	}
}

func says(m message, id functions.InstanceID, s functions.InstanceState) bool {
	if m.report == nil {
		return false
	}
	for _, r := range m.report.Instances {
		if r.Instance == id && r.State == s {
			return true
		}
	}
	return false
}

// TestFreezeAgainstLease: whoever is given a slot finds the instance running for as long as the slot is held, however close to the moment
// of its freezing; nobody waits for ever.
func TestFreezeAgainstLease(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	const instances, leases = 8, 1000
	var wg sync.WaitGroup
	for n := range instances {
		id := w.serving(icy(time.Millisecond))
		box := w.driver.box(id)
		box.frost.slow.Store(n%4 == 0)
		for range 2 {
			wg.Go(func() {
				for range leases {
					w.admit(id)
					if box.frost.frozen.Load() {
						t.Error("a slot was given of an instance that stands still")
					}
					if rand.IntN(4) == 0 {
						time.Sleep(rand.N(3 * time.Millisecond))
						if box.frost.frozen.Load() {
							t.Error("frozen while a slot was held")
						}
					}
					w.worker.Release(w.cfg.Node, id)
					// About as long as the grace.
					time.Sleep(rand.N(2500 * time.Microsecond))
				}
			})
		}
		defer func() {
			if n%4 != 0 && box.frost.freezes.Load() == 0 {
				t.Error("it was never frozen")
			}
		}()
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(2 * time.Minute):
		t.Fatal("a lease hangs")
	}
}

func TestWhatIsNeverFrozen(t *testing.T) {
	t.Parallel()
	awake := revision()
	awake.Config.Scale.Awake = true
	w := newWorld(t, func(c *worker.Config) { c.FreezeAfter = 10 * time.Millisecond })
	kept, usual := w.serving(awake), w.serving(revision())
	w.state(usual, functions.InstanceFrozen)
	if w.driver.box(kept).frost.freezes.Load() != 0 {
		t.Error("frozen though its function is to stay awake")
	}
	off := newWorld(t, func(c *worker.Config) { c.FreezeAfter = -1 })
	id := off.serving(icy(time.Millisecond))
	off.await(0, "a few reports", func(m message) bool { return m.report != nil && m.report.Sequence > 5 })
	if off.driver.box(id).frost.freezes.Load() != 0 {
		t.Error("frozen though the node freezes none")
	}
}

// TestNotFrozenUnderAProcess: a further process in an instance goes on as long as it takes.
func TestNotFrozenUnderAProcess(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	id := w.serving(icy(10 * time.Millisecond))
	box := w.driver.box(id)
	w.state(id, functions.InstanceFrozen)
	stdin, typed := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		_, err := w.worker.Exec(t.Context(), id, []string{"cat"}, stdin, io.Discard, io.Discard)
		ended <- err
	}()
	// It runs once it reads.
	if _, err := typed.Write([]byte("in")); err != nil {
		t.Fatal(err)
	}
	before := box.frost.freezes.Load()
	w.state(w.serving(icy(30*time.Millisecond)), functions.InstanceFrozen)
	if box.frost.frozen.Load() || box.frost.freezes.Load() != before {
		t.Error("frozen while a process of Exec ran")
	}
	typed.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestFrozenInstanceIsUsedOtherwise: commands, drain and end of a frozen instance go their way.
func TestFrozenInstanceIsUsedOtherwise(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	id := w.serving(icy(10 * time.Millisecond))
	box := w.driver.box(id)
	w.state(id, functions.InstanceFrozen)
	var out strings.Builder
	code, err := w.worker.Exec(t.Context(), id, []string{"ls"}, strings.NewReader("in"), &out, io.Discard)
	if err != nil || code != 3 || out.String() != "[ls] in" {
		t.Errorf("%d, %q, %v", code, out.String(), err)
	}
	for end := time.Now().Add(patience); box.frost.freezes.Load() < 2 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	w.tell(id, bus.ActionDrain, "drained", time.Now().Add(time.Minute))
	if got := w.state(id, functions.InstanceStopped); got.Reason != "drained" {
		t.Errorf("%+v", got)
	}
	if err := w.worker.Admit(w.cfg.Node, id); err == nil {
		t.Error("a slot was given of one that is gone")
	}

	crashed := w.serving(icy(10 * time.Millisecond))
	w.state(crashed, functions.InstanceFrozen)
	w.driver.box(crashed).exit(functions.Exit{Code: 137, OOM: true})
	if got := w.state(crashed, functions.InstanceFailed); !strings.Contains(got.Reason, "out of memory") {
		t.Errorf("%+v", got)
	}

	stuck := w.serving(icy(10 * time.Millisecond))
	w.state(stuck, functions.InstanceFrozen)
	frost := &w.driver.box(stuck).frost
	frost.stuck.Store(true)
	if err := w.worker.Admit(w.cfg.Node, stuck); err == nil || !strings.Contains(err.Error(), "thaw") {
		t.Errorf("a slot of one that cannot be thawed: %v", err)
	}
	frost.stuck.Store(false)
	w.admit(stuck)
	w.worker.Release(w.cfg.Node, stuck)
}

// TestFrozenInstanceIsAdopted: the worker that froze it is gone; the next one thaws it before it asks whether it is ready.
func TestFrozenInstanceIsAdopted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *worker.Config) { c.KeepInstances = true })
	rev := icy(10 * time.Millisecond)
	rev.Config.Readiness.Path = "/ready"
	id := w.serving(rev)
	w.state(id, functions.InstanceFrozen)
	w.end()
	box := w.driver.box(id)
	if !box.frost.frozen.Load() {
		t.Fatal("the worker thawed what it left")
	}
	w.mu.Lock()
	from := len(w.heard)
	w.mu.Unlock()
	w.run()
	w.await(from, "adopted", func(m message) bool { return says(m, id, functions.InstanceReady) })
	w.await(from, "frozen again", func(m message) bool { return says(m, id, functions.InstanceFrozen) })
	w.admit(id)
	if box.frost.frozen.Load() {
		t.Error("it stands still")
	}
	w.worker.Release(w.cfg.Node, id)
	w.cfg.KeepInstances = false
	w.end()
	w.run()
}

// TestFrozenInstancesGiveMemoryBack: only while the machine has little left, and once.
func TestFrozenInstancesGiveMemoryBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *worker.Config) { c.Capacity.Memory = functions.GiB / 8 })
	rev := icy(10 * time.Millisecond)
	rev.Config.Limits.Memory, rev.Config.Limits.Ephemeral = 16*functions.MiB, functions.MiB
	id := w.serving(rev)
	w.state(id, functions.InstanceFrozen)
	frost := &w.driver.box(id).frost
	for end := time.Now().Add(patience); frost.reclaims.Load() == 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	w.mu.Lock()
	from := len(w.heard)
	w.mu.Unlock()
	w.await(from+4, "more reports", func(m message) bool { return m.report != nil && m.report.Full })
	if n := frost.reclaims.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
}
