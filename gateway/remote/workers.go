package remote

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"maps"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/internal/fault"
)

// Local is the worker of this process.
type Local interface {
	Admit(node functions.NodeID, inst functions.InstanceID) error
	Release(node functions.NodeID, inst functions.InstanceID)
	Dial(ctx context.Context, node functions.NodeID, inst functions.InstanceID) (net.Conn, error)
	Logs(ctx context.Context, q bus.LogQuery, fn func(bus.LogLine) error) error
	Exec(ctx context.Context, inst functions.InstanceID, args []string, stdin io.Reader, stdout, stderr io.Writer) (int, error)
	End(node functions.NodeID, inst functions.InstanceID, reason string) error
}

// Config says what is here already.
type Config struct {
	// Node is this process's own node.
	Node functions.NodeID
	// Local is its worker; nil where it runs none.
	Local Local
	// Locate returns the node of an instance. Required for Exec.
	Locate func(ctx context.Context, inst functions.InstanceID) (functions.NodeID, error)
	// TLS makes the configuration with which the listener of a node's worker is reached; nil: no joined worker is.
	TLS func(functions.NodeID) *tls.Config
	// LostAfter is how long a worker may be out of reach before it counts as lost. Default 5s.
	LostAfter time.Duration
}

// Workers reaches the workers. It is safe for concurrent use.
type Workers struct {
	cfg Config
	log *slog.Logger
	// peers is replaced, never changed, so that the way of a request takes no lock here. Those of removed nodes are not met again.
	peers   atomic.Pointer[map[functions.NodeID]*peer]
	removed map[functions.NodeID]bool

	mu sync.Mutex
	// ctx is Run's, nil before.
	ctx  context.Context
	lost func(functions.NodeID)
	back func(functions.NodeID)
	busy sync.WaitGroup
	// met is closed, and made anew, when a worker is met.
	met chan struct{}
}

// New makes the workers' reach; it knows no joined worker until Heard.
func New(cfg Config, log *slog.Logger) *Workers {
	if cfg.LostAfter == 0 {
		cfg.LostAfter = 5 * time.Second
	}
	w := &Workers{cfg: cfg, log: log, met: make(chan struct{}), removed: map[functions.NodeID]bool{}}
	w.peers.Store(&map[functions.NodeID]*peer{})
	return w
}

// Notify names who is told that a worker's instances are out of reach, and that a worker that was lost is there again. Call it before Run.
func (w *Workers) Notify(lost, back func(functions.NodeID)) { w.lost, w.back = lost, back }

// Run keeps the sessions until ctx ends, then ends them.
func (w *Workers) Run(ctx context.Context) error {
	w.mu.Lock()
	w.ctx = ctx
	for _, p := range *w.peers.Load() {
		w.keep(ctx, p)
	}
	w.mu.Unlock()
	<-ctx.Done()
	w.mu.Lock()
	w.ctx = nil
	w.mu.Unlock()
	w.busy.Wait()
	return nil
}

// Heard takes note of where a node's worker listens. It is to be called with every endpoint table before its endpoints are used.
func (w *Workers) Heard(t *bus.EndpointTable) {
	if t.Listener == nil || t.Node == w.cfg.Node || w.cfg.TLS == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.removed[t.Node] {
		return
	}
	if p := w.peer(t.Node); p != nil {
		p.point(*t.Listener)
		return
	}
	p := newPeer(w, t.Node, *t.Listener)
	all := maps.Clone(*w.peers.Load())
	all[t.Node] = p
	w.peers.Store(&all)
	close(w.met)
	w.met = make(chan struct{})
	if w.ctx != nil {
		w.keep(w.ctx, p)
	}
}

// keep begins to keep sessions with a worker; w.mu is held.
func (w *Workers) keep(ctx context.Context, p *peer) {
	ctx, p.end = context.WithCancel(ctx)
	w.busy.Go(func() { p.keep(ctx) })
}

// Remove ends the session with a node's worker, and all that goes through it, for good.
func (w *Workers) Remove(node functions.NodeID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.removed[node] = true
	if p := w.peer(node); p != nil {
		w.drop(p)
		if p.end != nil {
			p.end()
		}
	}
}

// forget lets go of a worker that was not reached for long; it is met again by its next table.
func (w *Workers) forget(p *peer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.drop(p)
	p.end()
}

// drop takes a worker out of those that are known; w.mu is held.
func (w *Workers) drop(p *peer) {
	all := maps.Clone(*w.peers.Load())
	if all[p.node] == p {
		delete(all, p.node)
		w.peers.Store(&all)
	}
}

func (w *Workers) peer(node functions.NodeID) *peer { return (*w.peers.Load())[node] }

func (w *Workers) here(node functions.NodeID) bool { return node == w.cfg.Node && w.cfg.Local != nil }

// Admit takes a slot of the instance. An error means that nothing was taken: the instance is full, drains or is gone, or its worker is out
// of reach. A worker elsewhere is asked; it answers before bus.SessionMissed signs of life are missed, or its session breaks.
func (w *Workers) Admit(node functions.NodeID, inst functions.InstanceID) error {
	if w.here(node) {
		return w.cfg.Local.Admit(node, inst)
	}
	if p := w.peer(node); p != nil {
		return p.admit(inst)
	}
	return unknown(node)
}

// Release gives the slot back.
func (w *Workers) Release(node functions.NodeID, inst functions.InstanceID) {
	if w.here(node) {
		w.cfg.Local.Release(node, inst)
	} else if p := w.peer(node); p != nil {
		p.release(inst)
	}
}

// Dial connects to the function's port in the instance.
func (w *Workers) Dial(ctx context.Context, node functions.NodeID, inst functions.InstanceID) (net.Conn, error) {
	if w.here(node) {
		return w.cfg.Local.Dial(ctx, node, inst)
	}
	if p := w.peer(node); p != nil {
		return p.dial(ctx, inst)
	}
	return nil, unknown(node)
}

// endTimeout bounds the wait for a worker that is to end an instance.
const endTimeout = 5 * time.Second

// End has the instance stopped, whoever holds a slot of it.
func (w *Workers) End(node functions.NodeID, inst functions.InstanceID, reason string) error {
	if w.here(node) {
		return w.cfg.Local.End(node, inst, reason)
	}
	p := w.peer(node)
	if p == nil {
		return unknown(node)
	}
	ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
	defer cancel()
	resp, err := p.post(ctx, bus.PathEnd, bus.EndRequest{Schema: bus.Schema, Instance: inst, Reason: reason})
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

func unknown(node functions.NodeID) error {
	return fault.New(fault.CodeUnavailable, "no worker of node %s is known", node).WithHint("tatami node ls")
}
