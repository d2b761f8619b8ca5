package worker_test

import (
	"slices"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/runtime/sandbox"
	"github.com/tatami-faas/tatami/worker"
)

// forget drops what was heard so far, what is still on its way included.
func (w *world) forget() {
	w.t.Helper()
	if err := w.bus.Conn().Flush(); err != nil {
		w.t.Fatal(err)
	}
	arrived := make(chan struct{})
	if err := w.bus.Conn().Barrier(func() { close(arrived) }); err != nil {
		w.t.Fatal(err)
	}
	<-arrived
	w.mu.Lock()
	defer w.mu.Unlock()
	w.heard = nil
}

func (w *world) texts(id functions.InstanceID) []string {
	w.t.Helper()
	var out []string
	q := bus.LogQuery{Ref: functions.Ref{Namespace: "shop", Name: "cart"}, Instance: id}
	if err := w.worker.Logs(w.t.Context(), q, func(l bus.LogLine) error { out = append(out, l.Text); return nil }); err != nil {
		w.t.Fatal(err)
	}
	return out
}

func TestARestartAdopts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *worker.Config) { c.KeepInstances = true })
	runs, dies, starts := w.serving(revision()), w.serving(revision()), w.begin(revision("late:2s"))
	lost, torn := w.serving(revision()), w.serving(revision())
	w.state(starts, functions.InstanceStarting)
	for w.driver.box(starts) == nil {
		time.Sleep(time.Millisecond)
	}
	box := w.driver.box(runs)
	box.write(box.Info().Stdout, "before\n")
	before := w.state(runs, functions.InstanceReady)
	w.end()
	if n := len(w.driver.all()); n != 5 {
		t.Fatalf("%d sandboxes are left, want 5", n)
	}
	// Behind all that it has told.
	if err := bus.Publish(w.bus, bus.ReportSubject(w.cfg.Node), bus.Report{State: bus.NodeState{Name: "the end"}}); err != nil {
		t.Fatal(err)
	}
	w.await(0, "the end", func(m message) bool { return m.report != nil && m.report.State.Name == "the end" })
	for _, m := range w.messages() {
		if m.report != nil && m.report.State.Departed {
			t.Error("it says that it has left for good, though instances stay")
		}
	}

	box.write(box.Info().Stdout, "between\n")
	d := w.driver.box(dies)
	d.write(d.Info().Stderr, "last words\n")
	d.exit(functions.Exit{Code: 3})
	w.driver.box(lost).info.Record = nil
	w.driver.box(torn).info.Record = []byte(`{"schema":99}`)
	w.forget()
	w.run()

	after := w.state(runs, functions.InstanceReady)
	if !after.Adopted || after.PID != before.PID || after.Slots != 2 || !after.Started.Equal(before.Started) || after.Reserved != before.Reserved || after.Phases != (functions.Phases{}) {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
	w.await(0, "its endpoint", func(m message) bool {
		return m.table != nil && slices.ContainsFunc(m.table.Endpoints, func(e bus.Endpoint) bool { return e.Instance == runs })
	})
	w.admit(runs)
	w.worker.Release(w.cfg.Node, runs)
	if r := w.state(starts, functions.InstanceReady); !r.Adopted {
		t.Errorf("the one that was starting: %+v", r)
	}
	if r := w.state(dies, functions.InstanceFailed); r.Reason != "exited with code 3 while the worker was away" || r.Exit.Code != 3 {
		t.Errorf("the one that died: %+v", r)
	}
	if got := w.texts(dies); !slices.Equal(got, []string{"last words", "exited with code 3 while the worker was away"}) {
		t.Errorf("the log of the one that died: %q", got)
	}
	for id, reason := range map[functions.InstanceID]string{
		lost: "removed after a restart: its record is missing",
		torn: "removed after a restart: its record has schema 99, this tatami knows 1",
	} {
		if r := w.state(id, functions.InstanceStopped); r.Reason != reason {
			t.Errorf("report %+v, want %q", r, reason)
		}
	}
	box.write(box.Info().Stdout, "after\n")
	w.cfg.KeepInstances = false
	w.tell(runs, bus.ActionStop, "idle", time.Time{})
	w.tell(starts, bus.ActionStop, "idle", time.Time{})
	w.state(runs, functions.InstanceStopped)
	w.state(starts, functions.InstanceStopped)
	if got := w.texts(runs); !slices.Equal(got, []string{"before", "between", "after", "idle"}) {
		t.Errorf("log %q", got)
	}
	if n := len(w.driver.all()); n != 0 {
		t.Errorf("%d sandboxes are left", n)
	}
}

// A sandbox that was made while its worker was killed, before the worker knew of it, is no orphan.
func TestASandboxNobodyKnows(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.end()
	id := functions.NewInstanceID()
	if _, err := w.driver.Create(t.Context(), sandbox.Spec{ID: id, Record: []byte("{}")}); err != nil {
		t.Fatal(err)
	}
	w.forget()
	w.run()
	w.state(id, functions.InstanceStopped)
	if w.driver.box(id) != nil {
		t.Error("it is still there")
	}
}
