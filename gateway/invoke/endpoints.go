package invoke

import (
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
)

// endpoints follows the tables that workers push. One goroutine uses it.
type endpoints struct {
	bus     *bus.Bus
	reg     *registry
	workers Workers
	log     *slog.Logger
	tables  func(*bus.EndpointTable)
	nodes   map[functions.NodeID]*nodeTable
}

// nodeTable is what one worker said.
type nodeTable struct {
	boot     string
	sequence uint64
	// whole is false until a full table came in this boot without a gap since.
	whole bool
	insts map[functions.InstanceID]functions.Ref
}

func newEndpoints(b *bus.Bus, reg *registry, w Workers, log *slog.Logger) *endpoints {
	return &endpoints{bus: b, reg: reg, workers: w, log: log, nodes: map[functions.NodeID]*nodeTable{}}
}

// want asks every worker for its whole table.
func (e *endpoints) want() { e.wantOf("") }

// wantOf asks one worker for its whole table. Were all asked where one table has a gap, their answers would make further gaps where the bus is slow.
func (e *endpoints) wantOf(node functions.NodeID) {
	if err := e.bus.Conn().Publish(bus.SubjectEndpointsWanted, []byte(node)); err != nil {
		e.log.Error("the endpoint tables were not asked for", "node", node, "err", err)
	}
}

func (e *endpoints) message(m *nats.Msg) {
	t, err := bus.Read[bus.EndpointTable](m.Data)
	if err != nil {
		e.log.Error("an endpoint table cannot be read", "subject", m.Subject, "err", err)
		return
	}
	if !bus.OfNode(m.Subject, bus.SubjectEndpoints, t.Node) {
		e.log.Error("an endpoint table names another node than its subject", "subject", m.Subject, "node", t.Node)
		return
	}
	e.take(t)
}

func (e *endpoints) take(t *bus.EndpointTable) {
	if e.tables != nil {
		e.tables(t)
	}
	e.apply(t, time.Now())
}

// lose lets go of the instances of a node that is out of reach. Its next table is asked for in full.
func (e *endpoints) lose(node functions.NodeID, now time.Time) {
	n := e.nodes[node]
	if n == nil {
		return
	}
	for _, id := range slices.Sorted(maps.Keys(n.insts)) {
		e.depart(n, bus.Departure{Instance: id, State: functions.InstanceStopped, Reason: "its node is out of reach"}, now)
	}
	delete(e.nodes, node)
}

func (e *endpoints) apply(t *bus.EndpointTable, now time.Time) {
	n := e.nodes[t.Node]
	if n == nil {
		n = &nodeTable{insts: map[functions.InstanceID]functions.Ref{}}
		e.nodes[t.Node] = n
	}
	missed := n.boot != t.Boot || t.Sequence != n.sequence+1
	if n.boot == t.Boot && t.Sequence <= n.sequence && !t.Full {
		return
	}
	n.boot, n.sequence = t.Boot, t.Sequence
	if t.Full {
		n.whole = true
		e.replace(n, t, now)
	} else if missed {
		n.whole = false
	}
	for i := range t.Endpoints {
		ep := &t.Endpoints[i]
		if ep.Slots < 1 || ep.Node != t.Node {
			e.log.Error("an endpoint is not usable", "inst", ep.Instance, "node", ep.Node, "slots", ep.Slots)
			continue
		}
		if f := e.reg.find(ep.Ref()); f != nil {
			if owner := f.pool.nodeOf(ep.Instance); owner != "" && owner != t.Node {
				e.log.Error("an endpoint is another node's", "inst", ep.Instance, "node", t.Node, "owner", owner)
				continue
			}
		}
		n.insts[ep.Instance] = ep.Ref()
		for !e.reg.get(ep.Ref()).pool.add(ep, e.workers, now) {
			// The registry was forgetting the function just then.
			runtime.Gosched()
		}
	}
	for _, d := range t.Removed {
		e.depart(n, d, now)
	}
	// Whatever was missed is in the whole table; what this one says holds anyway.
	if !n.whole {
		e.wantOf(t.Node)
	}
}

// replace lets go of the instances that a full table does not name.
func (e *endpoints) replace(n *nodeTable, t *bus.EndpointTable, now time.Time) {
	keep := make(map[functions.InstanceID]bool, len(t.Endpoints))
	for i := range t.Endpoints {
		keep[t.Endpoints[i].Instance] = true
	}
	for _, d := range t.Removed {
		keep[d.Instance] = true
	}
	for id := range n.insts {
		if !keep[id] {
			e.depart(n, bus.Departure{Instance: id, State: functions.InstanceStopped, Reason: "its node no longer has it"}, now)
		}
	}
}

func (e *endpoints) depart(n *nodeTable, d bus.Departure, now time.Time) {
	if ref, ok := n.insts[d.Instance]; ok {
		delete(n.insts, d.Instance)
		if f := e.reg.find(ref); f != nil {
			if i := f.pool.remove(d.Instance); i != nil {
				i.depart(d)
			}
			e.reg.drop(f)
		}
	}
	if d.Failed != nil {
		ref := functions.Ref{Namespace: d.Failed.Namespace, Name: d.Failed.Function}
		if f := e.reg.find(ref); f != nil {
			f.pool.startFailed(d.Failed, d.Reason, now)
		}
	}
}
