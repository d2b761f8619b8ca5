package worker_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/tests/leaks"
	"github.com/tatami-faas/tatami/worker"
)

func TestMain(m *testing.M) { leaks.VerifyTestMain(m) }

const patience = time.Minute

// message is a report or a table, in the order of arrival over both subjects.
type message struct {
	report *bus.Report
	table  *bus.EndpointTable
}

// world is a bus, a driver and what is heard of the worker on them.
type world struct {
	t      *testing.T
	bus    *bus.Bus
	driver *simDriver
	cfg    worker.Config

	mu    sync.Mutex
	heard []message
	more  chan struct{}

	worker *worker.Worker
	stop   context.CancelFunc
	ended  chan error
}

func newWorld(t *testing.T, change func(*worker.Config)) *world {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	b, err := bus.Open(t.Context(), bus.Config{DataDir: t.TempDir()}, log)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, bus: b, driver: newSimDriver(t), more: make(chan struct{}), cfg: worker.Config{
		Node: functions.NewNodeID(), Name: "here", DataDir: t.TempDir(), RunDir: t.TempDir(),
		Capacity: functions.Resources{CPU: 4000, Memory: 8 * functions.GiB},
		Grace:    50 * time.Millisecond, ReportEvery: 50 * time.Millisecond, DrainTimeout: 2 * time.Second,
	}}
	if change != nil {
		change(&w.cfg)
	}
	// One subscription for both subjects, so that what is heard has the order in which it was said.
	if _, err := b.Conn().Subscribe("tatami.*."+string(w.cfg.Node), w.hear); err != nil {
		t.Fatal(err)
	}
	// The test's own context has ended by the time of the cleanups.
	t.Cleanup(func() { _ = b.Close(context.Background()) })
	w.run()
	t.Cleanup(func() { w.end() })
	return w
}

// run starts a worker, the first or a next one.
func (w *world) run() {
	w.t.Helper()
	log := slog.New(slog.NewTextHandler(w.t.Output(), &slog.HandlerOptions{Level: slog.LevelError + 1}))
	wk, err := worker.New(w.cfg, w.driver, w.bus, log)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	w.worker, w.stop, w.ended = wk, stop, make(chan error, 1)
	go func() { w.ended <- wk.Run(ctx) }()
	select {
	case <-wk.Ready():
	case err := <-w.ended:
		w.t.Fatalf("the worker ended: %v", err)
	case <-time.After(patience):
		w.t.Fatal("the worker is not ready")
	}
}

// end stops the worker and waits for its end.
func (w *world) end() {
	if w.stop == nil {
		return
	}
	w.stop()
	w.stop = nil
	select {
	case err := <-w.ended:
		if err != nil {
			w.t.Errorf("the worker's end: %v", err)
		}
	case <-time.After(patience):
		w.t.Fatal("the worker does not end")
	}
}

func (w *world) hear(m *nats.Msg) {
	var got message
	var err error
	switch m.Subject {
	case bus.ReportSubject(w.cfg.Node):
		got.report = &bus.Report{}
		err = json.Unmarshal(m.Data, got.report)
	case bus.EndpointsSubject(w.cfg.Node):
		got.table = &bus.EndpointTable{}
		err = json.Unmarshal(m.Data, got.table)
	default: // our own commands
		return
	}
	if err != nil {
		w.t.Errorf("a message on %s: %v", m.Subject, err)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.heard = append(w.heard, got)
	close(w.more)
	w.more = make(chan struct{})
}

// await returns the index of the first message, from the index on, that is wanted.
func (w *world) await(from int, what string, want func(message) bool) int {
	w.t.Helper()
	over := time.After(patience)
	for {
		w.mu.Lock()
		heard, more := w.heard, w.more
		w.mu.Unlock()
		for ; from < len(heard); from++ {
			if want(heard[from]) {
				return from
			}
		}
		select {
		case <-more:
		case <-over:
			w.t.Fatalf("no message: %s", what)
		}
	}
}

func (w *world) messages() []message {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.heard
}

// state awaits a report of the instance in the state.
// state awaits a report of the instance in one of the states: a state that lasts for less than a report's time may be told by none.
func (w *world) state(id functions.InstanceID, states ...functions.InstanceState) bus.InstanceReport {
	w.t.Helper()
	var found bus.InstanceReport
	w.await(0, fmt.Sprint(id, states), func(m message) bool {
		if m.report == nil {
			return false
		}
		for _, r := range m.report.Instances {
			if r.Instance == id && slices.Contains(states, r.State) {
				found = r
				return true
			}
		}
		return false
	})
	return found
}

// departure awaits a table that removes the instance.
func (w *world) departure(id functions.InstanceID, want func(bus.Departure) bool) bus.Departure {
	w.t.Helper()
	var found bus.Departure
	w.await(0, "departure of "+string(id), func(m message) bool {
		if m.table == nil {
			return false
		}
		for _, d := range m.table.Removed {
			if d.Instance == id && (want == nil || want(d)) {
				found = d
				return true
			}
		}
		return false
	})
	return found
}

// revision is a revision whose instances behave as the words say.
func revision(words ...string) *functions.Revision {
	cfg := functions.Config{Command: append([]string{"run"}, words...), Env: map[string]string{"COLOUR": "blue", "TATAMI_INSTANCE": "mine"}}.WithDefaults()
	cfg.Concurrency = 2
	return &functions.Revision{
		Schema: 1, ID: "rev_abcdefghijklmnop", Namespace: "shop", Function: "cart", Config: cfg,
		Artifact: functions.Artifact{Digest: "sha256:" + strings.Repeat("0", 64), Name: "image"},
	}
}

func (w *world) command(c bus.Command) {
	w.t.Helper()
	c.Schema, c.Node = bus.Schema, w.cfg.Node
	if c.Epoch == 0 {
		c.Epoch = bus.Epoch
	}
	if err := bus.Publish(w.bus, bus.CommandSubject(w.cfg.Node), c); err != nil {
		w.t.Fatal(err)
	}
}

// begin commands a start and returns the instance's id.
func (w *world) begin(rev *functions.Revision) functions.InstanceID {
	w.t.Helper()
	id := functions.NewInstanceID()
	w.command(bus.Command{Envelope: bus.Envelope{Instance: id}, Action: bus.ActionStart, Revision: rev, Asked: time.Now().Add(-3 * time.Millisecond)})
	return id
}

// serving starts an instance and awaits that it is ready.
func (w *world) serving(rev *functions.Revision) functions.InstanceID {
	w.t.Helper()
	id := w.begin(rev)
	w.state(id, functions.InstanceReady, functions.InstanceFrozen)
	return id
}

func (w *world) tell(id functions.InstanceID, a bus.Action, reason string, deadline time.Time) {
	w.t.Helper()
	w.command(bus.Command{Envelope: bus.Envelope{Instance: id}, Action: a, Reason: reason, Deadline: deadline})
}

func (w *world) admit(id functions.InstanceID) {
	w.t.Helper()
	if err := w.worker.Admit(w.cfg.Node, id); err != nil {
		w.t.Fatal(err)
	}
}
