package invoke_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/invoke"
	"github.com/tatami-faas/tatami/internal/bus"
)

// What is on a worker that is lost is leased to nobody, however free it is; what is elsewhere is.
func TestAWorkerIsLost(t *testing.T) {
	t.Parallel()
	b := setup(t, invoke.Config{})
	id := b.backend(b.deploy("hello", func(c *functions.Config) { c.Concurrency = 1 }), seen)
	l, err := b.inv.Lease(t.Context(), hello, invoke.Sync)
	if err != nil {
		t.Fatal(err)
	}
	l.Release()
	demands := b.demands()
	// The other worker is heard of after that, so that whoever gets its instance knows of the loss.
	elsewhere := l.Endpoint()
	elsewhere.Instance, elsewhere.Node = functions.NewInstanceID(), functions.NewNodeID()
	b.node.mu.Lock()
	b.node.insts[elsewhere.Instance] = &inst{addr: b.node.insts[id].addr, ep: elsewhere}
	b.node.mu.Unlock()
	b.inv.Lose(b.node.id)
	b.inv.Hear(&bus.EndpointTable{
		Envelope: bus.Envelope{Schema: bus.Schema, Boot: "other", Node: elsewhere.Node, Sequence: 1}, Full: true, Endpoints: []bus.Endpoint{elsewhere},
	})
	for l.Endpoint().Instance != elsewhere.Instance {
		// Until then it may still be had, once.
		before := l
		if l, err = b.inv.Lease(t.Context(), hello, invoke.Sync); err != nil {
			t.Fatal(err)
		}
		before.Release()
	}
	defer l.Release()
	ctx, cancel := context.WithCancel(t.Context())
	leased := make(chan *invoke.Lease, 1)
	go func() {
		l, _ := b.inv.Lease(ctx, hello, invoke.Sync)
		leased <- l
	}()
	for waits := false; !waits; {
		select {
		case d := <-demands:
			waits = slices.ContainsFunc(d.Functions, func(f bus.FunctionDemand) bool { return f.Waiting > 0 && f.InFlight > 0 })
		case <-time.After(patience):
			t.Fatal("nobody waits")
		case l := <-leased:
			leased <- l
			waits = true
		}
	}
	cancel()
	if l := <-leased; l != nil {
		t.Errorf("an instance of %s is leased", l.Endpoint().Node)
		l.Release()
	}
}
