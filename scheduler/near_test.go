package scheduler_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/scheduler"
)

// TestNear: what a gateway of the same process demands is heard as from the bus, and a worker of the same process gets its commands without it; what that
// one does not take goes over the bus.
func TestNear(t *testing.T) {
	t.Parallel()
	b := openBus(t)
	w := startWorker(t, b)
	near := make(chan bus.Command, 256)
	var mu sync.Mutex
	takes := true
	cfg := quick()
	cfg.Epoch = 7
	cfg.Near = func(c *bus.Command) bool {
		mu.Lock()
		defer mu.Unlock()
		if takes {
			w.take(*c)
			near <- *c
		}
		return takes
	}
	s, err := scheduler.New(cfg, b, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	demand := &bus.Demand{
		Envelope: bus.Envelope{Schema: bus.Schema, Boot: "boot", Sequence: 1}, Gateway: "here", Partial: true,
		Functions: []bus.FunctionDemand{{Namespace: hello.Namespace, Function: hello.Name, Waiting: 1}},
	}
	heard := make(chan bool, 1)
	go func() { heard <- s.Hear(demand) }()
	select {
	case taken := <-heard:
		if taken {
			t.Fatal("a scheduler that does not run has taken a demand")
		}
	case <-time.After(patience):
		t.Fatal("a demand waits for a scheduler that does not run")
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	<-s.Ready()
	nextNear := func() bus.Command {
		t.Helper()
		for {
			select {
			case c := <-near:
				if c.Action == bus.ActionStart {
					return c
				}
			case <-time.After(patience):
				t.Fatal("no command to start came near")
			}
		}
	}

	deploy(t, b, revision("rev_a"))
	first := nextNear()
	if first.Revision == nil || first.Boot == "" || first.Sequence == 0 || first.Epoch != 7 || first.Node != w.node {
		t.Errorf("a command is incomplete: %+v", first)
	}
	if o := ask[bus.Overview](t, b, bus.SubjectOverview, nil); o.Epoch != 7 {
		t.Errorf("the scheduler says that its epoch is %d", o.Epoch)
	}
	w.ready(first.Instance)
	awaitFunction(t, b, func(f functions.Function) bool { return f.Live == "rev_a" })
	select {
	case c := <-w.commands:
		t.Errorf("a command that was taken went over the bus, too: %+v", c)
	default:
	}

	// More than one instance serves at once.
	demand.Functions[0].Waiting = 10 * revision("rev_a").Config.Concurrency
	if !s.Hear(demand) {
		t.Error("a demand was not taken")
	}
	nextNear()
	mu.Lock()
	takes = false
	mu.Unlock()
	deploy(t, b, revision("rev_b"))
	if c := w.next(bus.ActionStart); c.Revision == nil {
		t.Errorf("a command that was not taken: %+v", c)
	}
}
