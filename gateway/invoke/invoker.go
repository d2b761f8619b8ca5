package invoke

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
)

// Invoker carries requests to instances. It is safe for concurrent use.
type Invoker struct {
	cfg     Config
	bus     *bus.Bus
	workers Workers
	log     *slog.Logger

	reg     *registry
	routes  *routes
	demand  *demand
	pending pendingReasons
	news    chan func(*endpoints)
	bufs    copyBufs
	lent    bufferPool
	calls   callPool
	ready   chan struct{}
	once    sync.Once
}

// New makes an invoker; it knows nothing until Run.
func New(cfg Config, b *bus.Bus, workers Workers, log *slog.Logger) (*Invoker, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	inv := &Invoker{cfg: cfg, bus: b, workers: workers, log: log, reg: newRegistry(), ready: make(chan struct{}), news: make(chan func(*endpoints), newsBacklog)}
	inv.routes = newRoutes(b, inv.reg, func(f *function) {
		f.pool.reroute(time.Now())
		inv.reg.drop(f)
	}, log)
	inv.demand = newDemand(b, inv.reg, log)
	inv.demand.near = cfg.Near
	inv.pending.bus = b
	return inv, nil
}

// Ready is closed once the routes are those of the store and the workers were asked for their instances.
func (inv *Invoker) Ready() <-chan struct{} { return inv.ready }

// messageBacklog bounds the endpoint tables that wait to be read; one that is dropped shows as a gap.
const messageBacklog = 4096

// newsBacklog bounds what is told of workers and not heeded yet.
const newsBacklog = 1024

// Lose lets go of the instances of a node that is out of reach: requests no longer wait for them.
func (inv *Invoker) Lose(node functions.NodeID) {
	inv.tell(func(e *endpoints) { e.lose(node, time.Now()) })
}

// Ask asks every worker for its whole endpoint table.
func (inv *Invoker) Ask() { inv.tell((*endpoints).want) }

func (inv *Invoker) tell(news func(*endpoints)) {
	if !inv.told(news) {
		inv.log.Error("news of workers come faster than they are heeded")
	}
}

func (inv *Invoker) told(news func(*endpoints)) bool {
	select {
	case inv.news <- news:
		return true
	default:
		return false
	}
}

// Hear takes the endpoint table of a worker of this process, as from the bus. It is false where it does not: then the bus has to carry it.
func (inv *Invoker) Hear(t *bus.EndpointTable) bool {
	return inv.told(func(e *endpoints) { e.take(t) })
}

// Run follows the tables and tells the demand until ctx ends. Requests under way are not its: whoever serves them ends them first.
func (inv *Invoker) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	tables := make(chan *nats.Msg, messageBacklog)
	sub, err := inv.bus.Conn().ChanSubscribe(bus.SubjectEndpoints, tables)
	if err != nil {
		return fmt.Errorf("subscribing to endpoint tables: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	eps := newEndpoints(inv.bus, inv.reg, inv.workers, inv.log)
	eps.tables = inv.cfg.Tables
	eps.want()
	g.Go(func() error {
		return inv.routes.watch(ctx, func() { inv.once.Do(func() { close(inv.ready) }) })
	})
	g.Go(func() error {
		for {
			select {
			case m := <-tables:
				eps.message(m)
			case news := <-inv.news:
				news(eps)
			case <-ctx.Done():
				return nil
			}
		}
	})
	g.Go(func() error {
		inv.demand.run(ctx)
		return nil
	})
	err = g.Wait()
	inv.closeIdle()
	if ctx.Err() != nil && err == nil {
		return nil
	}
	return err
}

// closeIdle ends the connections that nobody uses.
func (inv *Invoker) closeIdle() {
	for _, f := range inv.reg.all() {
		f.pool.mu.Lock()
		for _, i := range f.pool.insts {
			i.up.close()
		}
		f.pool.mu.Unlock()
	}
}

// Lookup returns the revision that takes the function's traffic, without what only starting its instances takes. Faults: function-not-found; unavailable and function-not-ready where
// no revision takes it.
func (inv *Invoker) Lookup(ctx context.Context, ref functions.Ref) (*functions.Revision, error) {
	f, rt, err := inv.routes.find(ctx, ref)
	if err != nil {
		return nil, err
	}
	if rt.live == nil {
		return nil, f.noLive(rt)
	}
	return rt.live, nil
}

// AllowQueued says whether the queue may accept an invocation of the function: the function exists and the namespace's rate allows it.
// It returns the revision that takes the traffic.
func (inv *Invoker) AllowQueued(ctx context.Context, ref functions.Ref) (*functions.Revision, error) {
	f, rt, err := inv.routes.find(ctx, ref)
	if err != nil {
		return nil, err
	}
	if rt.live == nil {
		return nil, f.noLive(rt)
	}
	if err := f.ns.allow(time.Now()); err != nil {
		return nil, err
	}
	return rt.live, nil
}

// WaitApplied returns once requests are routed by the given revision of the functions table, or a later one.
func (inv *Invoker) WaitApplied(ctx context.Context, kvRevision uint64) error {
	return inv.routes.waitApplied(ctx, kvRevision)
}
