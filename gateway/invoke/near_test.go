package invoke_test

import (
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/gateway/invoke"
	"github.com/tatami-faas/tatami/internal/bus"
)

// TestNear: the scheduler of the same process gets the demand, and the worker of the same process gives its endpoint tables, without the bus; a demand that
// is not taken goes over it.
func TestNear(t *testing.T) {
	t.Parallel()
	var takes atomic.Bool
	var last atomic.Uint64
	needed := make(chan struct{}, 1)
	b := setup(t, invoke.Config{Near: func(d *bus.Demand) bool {
		if !takes.Load() {
			return false
		}
		last.Store(d.Sequence)
		for _, f := range d.Functions {
			if f.Waiting > 0 {
				select {
				case needed <- struct{}{}:
				default:
				}
			}
		}
		return true
	}})
	s := httptest.NewServer(http.HandlerFunc(seen))
	defer s.Close()
	rev := b.deploy("hello", nil)
	published := b.demands()
	takes.Store(true)
	ready := make(chan bus.Endpoint, 1)
	go func() {
		<-needed
		ep := bus.Endpoint{
			Instance: functions.NewInstanceID(), Node: b.node.id, Namespace: rev.Namespace, Function: rev.Function, Revision: rev.ID,
			Slots: rev.Config.Concurrency, Started: time.Now(), Ready: time.Now(),
		}
		b.node.mu.Lock()
		defer b.node.mu.Unlock()
		b.node.insts[ep.Instance] = &inst{ep: ep, addr: s.Listener.Addr().String()}
		b.node.sequence++
		if !b.inv.Hear(&bus.EndpointTable{
			Envelope:  bus.Envelope{Schema: bus.Schema, Boot: b.node.boot, Node: b.node.id, Sequence: b.node.sequence, Epoch: bus.Epoch},
			Endpoints: []bus.Endpoint{ep},
		}) {
			t.Error("a table was not taken")
		}
		ready <- ep
	}()
	if resp, body := b.do("GET", "/fn/hello", nil); resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", resp.Status, body)
	}
	b.idle()
	takes.Store(false)
	b.node.end(t, bus.Departure{Instance: (<-ready).Instance, State: functions.InstanceStopped})
	var second sync.WaitGroup
	second.Go(func() { b.do("GET", "/fn/hello", nil) })
	if d := next(t, published); d.Sequence <= last.Load() {
		t.Errorf("a demand that was taken went over the bus, too: number %d of %d", d.Sequence, last.Load())
	}
	b.node.start(t, rev, s.Listener.Addr().String(), functions.Phases{})
	second.Wait()
}
