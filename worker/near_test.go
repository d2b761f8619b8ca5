package worker_test

import (
	"sync"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/worker"
)

// TestNear: a command of a scheduler of the same process is taken as from the bus, and the gateway of the same process gets the endpoint tables without
// it; what that one does not take goes over the bus.
func TestNear(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	takes, heard := true, map[functions.InstanceID]uint64{}
	more := make(chan struct{}, 256)
	w := newWorld(t, func(c *worker.Config) {
		c.Near = func(table *bus.EndpointTable) bool {
			mu.Lock()
			defer mu.Unlock()
			for _, e := range table.Endpoints {
				heard[e.Instance] = table.Sequence
			}
			more <- struct{}{}
			return takes
		}
	})
	near := func(node functions.NodeID) (functions.InstanceID, bool) {
		id := functions.NewInstanceID()
		return id, w.worker.Hear(&bus.Command{
			Envelope: bus.Envelope{Schema: bus.Schema, Node: node, Instance: id, Epoch: bus.Epoch}, Action: bus.ActionStart, Revision: revision(), Asked: time.Now(),
		})
	}
	if _, taken := near(functions.NewNodeID()); taken {
		t.Error("a command to another node was taken")
	}
	id, taken := near(w.cfg.Node)
	if !taken {
		t.Fatal("a command was not taken")
	}
	w.state(id, functions.InstanceReady, functions.InstanceFrozen)
	for {
		mu.Lock()
		_, ready := heard[id]
		mu.Unlock()
		if ready {
			break
		}
		<-more
	}
	for _, m := range w.messages() {
		if m.table != nil {
			t.Errorf("a table that was taken went over the bus, too: %+v", m.table)
		}
	}
	mu.Lock()
	takes = false
	mu.Unlock()
	other, _ := near(w.cfg.Node)
	w.await(0, "a table that was not taken", func(m message) bool {
		return m.table != nil && len(m.table.Endpoints) == 1 && m.table.Endpoints[0].Instance == other
	})
	w.end()
	if _, taken := near(w.cfg.Node); taken {
		t.Error("a worker that has ended has taken a command")
	}
}
