package worker_test

import (
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/worker"
)

// The only gateway may keep what it takes, one of several while half of the slots are free; whoever was told so is asked when somebody wants one.
func TestWhatGatewaysMayKeep(t *testing.T) {
	t.Parallel()
	w, at := newListening(t, nil)
	id := w.serving(revision())
	g := session(t, at)
	says := func(question, want string) {
		t.Helper()
		g.say(question + " " + string(id) + "\n")
		if got := g.hear(); got != want {
			t.Errorf("%s: heard %q, want %q", question, got, want)
		}
	}
	recalled := "R 0 " + string(id)
	says("A 1", "Y 1 keep")
	says("A 2", "Y 2 keep")
	// Another one's first wish for a slot finds none.
	if err := w.worker.Admit(w.cfg.Node, id); err == nil {
		t.Fatal("a third slot of two was given")
	}
	if got := g.hear(); got != recalled {
		t.Errorf("when somebody wanted a slot: %q", got)
	}
	if err := w.worker.Admit(w.cfg.Node, id); err == nil {
		t.Fatal("a third slot of two was given")
	}
	says("R 0 "+string(id)+"\nP 0", "Y 0")
}

// Beside another gateway, or one of the worker's own process, room is left.
func TestWhatOneOfSeveralMayKeep(t *testing.T) {
	t.Parallel()
	for name, other := range map[string]func(*world, listening){
		"another session": func(w *world, at listening) { session(w.t, at) },
		"one that is near": func(w *world, _ listening) {
			id := w.messages()[w.await(0, "an instance", func(m message) bool { return m.table != nil && len(m.table.Endpoints) == 1 })].table.Endpoints[0].Instance
			w.admit(id)
			w.worker.Release(w.cfg.Node, id)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, at := newListening(t, nil)
			id := w.serving(revision())
			g := session(t, at)
			other(w, at)
			g.say("A 1 " + string(id) + "\nA 2 " + string(id) + "\n")
			if a, b := g.hear(), g.hear(); a != "Y 1 keep" || b != "Y 2" {
				t.Errorf("heard %q and %q", a, b)
			}
		})
	}
}

// An instance that drains, or is ended, has its slots back from who keeps them; so has one whose worker leaves.
func TestKeptSlotsAreRecalled(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*world, functions.InstanceID){
		"it drains": func(w *world, id functions.InstanceID) { w.tell(id, bus.ActionDrain, "", time.Now().Add(patience)) },
		"it is ended": func(w *world, id functions.InstanceID) {
			if err := w.worker.End(w.cfg.Node, id, "given up"); err != nil {
				w.t.Error(err)
			}
		},
		"it is to stop":      func(w *world, id functions.InstanceID) { w.tell(id, bus.ActionStop, "", time.Time{}) },
		"the worker leaves":  func(w *world, _ functions.InstanceID) { w.stop() },
		"the process exited": func(w *world, id functions.InstanceID) { w.driver.box(id).exit(functions.Exit{Code: 1}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, at := newListening(t, func(c *worker.Config) { c.DrainTimeout = patience })
			id := w.serving(revision())
			g := session(t, at)
			g.say("A 1 " + string(id) + "\n")
			if got := g.hear(); got != "Y 1 keep" {
				t.Fatalf("heard %q", got)
			}
			end(w, id)
			if got := g.hear(); got != "R 0 "+string(id) {
				t.Errorf("heard %q", got)
			}
			g.say("R 0 " + string(id) + "\n")
		})
	}
}
