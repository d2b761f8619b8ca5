package state

import (
	"slices"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/scheduler/placement"
)

// The times after which silence counts.
const (
	// NodeTimeout is how long a node may be silent before its instances count as gone; they report every two seconds.
	NodeTimeout = 6 * time.Second
	// NodeForgotten is when a lost node is no longer shown.
	NodeForgotten = 5 * time.Minute
	// DemandTimeout is how long a gateway's last statement holds.
	DemandTimeout = 3 * time.Second
)

// State is the scheduler's whole knowledge. It belongs to one goroutine. Its maps are for reading: the methods keep them consistent.
type State struct {
	Nodes     map[functions.NodeID]*Node
	Instances map[functions.InstanceID]*Instance
	Functions map[functions.Ref]*Function
	Quotas    map[string]functions.Quota
	// Used is what the instances of a namespace hold.
	Used map[string]functions.Resources

	gateways map[string]*gateway
	// order holds the nodes by id, for placement.
	order []*placement.Node
}

// New returns an empty state.
func New() *State {
	return &State{
		Nodes:     map[functions.NodeID]*Node{},
		Instances: map[functions.InstanceID]*Instance{},
		Functions: map[functions.Ref]*Function{},
		Quotas:    map[string]functions.Quota{},
		Used:      map[string]functions.Resources{},
		gateways:  map[string]*gateway{},
	}
}

// Node is a node and what its worker last said.
type Node struct {
	placement.Node
	Report bus.NodeState
	Boot   string
	// Sequence is the last report's.
	Sequence uint64
	LastSeen time.Time
	// Instances are those placed on it.
	Instances map[functions.InstanceID]*Instance
}

// Instance is an instance as last reported, or as commanded when no report named it yet.
type Instance struct {
	bus.InstanceReport
	Node functions.NodeID
	// Placement says why it is where it is.
	Placement string
	// Commanded is when its start was last commanded; zero for one that was learnt from a report.
	Commanded time.Time
	// First is when its start was first commanded.
	First time.Time
	// Confirmed says that a report named it.
	Confirmed bool
	// ReadyAt is when it became ready; zero before.
	ReadyAt time.Time
	// Reported is when the last report that named it came in.
	Reported time.Time
	// Stopping is when it was last told to stop if idle, DrainSent when to drain; zero when not.
	Stopping  time.Time
	DrainSent time.Time
	// Deadline is when its drain ends by force.
	Deadline time.Time
}

// Active reports whether the instance takes requests, or will, and was not told to leave.
func (in *Instance) Active() bool {
	return (in.State == functions.InstanceReady || in.State == functions.InstanceStarting) && in.Stopping.IsZero() && in.DrainSent.IsZero()
}

// Leaving reports whether the instance was told to leave and holds no slot: what it holds will be free soon.
func (in *Instance) Leaving() bool {
	return in.Held == 0 && (!in.Stopping.IsZero() || !in.DrainSent.IsZero() || in.State == functions.InstanceDraining)
}

// NodeOrder returns the nodes by id, as placement wants them. The slice is the state's own.
func (s *State) NodeOrder() []*placement.Node { return s.order }

// Budget returns the namespace's quota and use.
func (s *State) Budget(namespace string) placement.Budget {
	return placement.Budget{Namespace: namespace, Quota: s.Quotas[namespace], Used: s.Used[namespace]}
}

// SetQuota records a namespace's quota.
func (s *State) SetQuota(q functions.Quota) { s.Quotas[q.Namespace] = q }

// DeleteQuota removes a namespace's quota: nothing bounds it then.
func (s *State) DeleteQuota(namespace string) { delete(s.Quotas, namespace) }

// SetCordon closes a node for placements or opens it. It does nothing for an unknown node.
func (s *State) SetCordon(id functions.NodeID, cordoned bool) {
	if n := s.Nodes[id]; n != nil {
		n.Cordoned = cordoned
	}
}

// Reserve adds an instance whose start is about to be commanded: from now on it counts. The node must be known.
func (s *State) Reserve(now time.Time, in Instance) *Instance {
	in.State = functions.InstanceStarting
	in.Since, in.Started, in.Commanded, in.First = now, now, now, now
	return s.insert(&in)
}

func (s *State) insert(in *Instance) *Instance {
	s.Instances[in.Instance] = in
	if n := s.Nodes[in.Node]; n != nil {
		n.Instances[in.Instance] = in
	}
	s.function(in.Ref()).Instances[in.Instance] = in
	s.hold(in, in.Reserved)
	return in
}

// Remove forgets an instance and frees what it holds.
func (s *State) Remove(id functions.InstanceID) {
	in := s.Instances[id]
	if in == nil {
		return
	}
	s.hold(in, functions.Resources{}.Sub(in.Reserved))
	delete(s.Instances, id)
	if n := s.Nodes[in.Node]; n != nil {
		delete(n.Instances, id)
	}
	if f := s.Functions[in.Ref()]; f != nil {
		delete(f.Instances, id)
		s.forget(f)
	}
}

func (s *State) hold(in *Instance, r functions.Resources) {
	if n := s.Nodes[in.Node]; n != nil {
		n.Reserved = n.Reserved.Add(r)
	}
	used := s.Used[in.Namespace].Add(r)
	if used == (functions.Resources{}) {
		delete(s.Used, in.Namespace)
		return
	}
	s.Used[in.Namespace] = used
}

func (s *State) function(r functions.Ref) *Function {
	f := s.Functions[r]
	if f == nil {
		f = newFunction(r)
		s.Functions[r] = f
	}
	return f
}

// forget drops a function that is deleted and has nothing left.
func (s *State) forget(f *Function) {
	if f.Record == nil && len(f.Instances) == 0 && len(f.Revisions) == 0 {
		delete(s.Functions, f.Ref)
	}
}

func (s *State) reorder() {
	s.order = s.order[:0]
	for _, n := range s.Nodes {
		s.order = append(s.order, &n.Node)
	}
	slices.SortFunc(s.order, func(a, b *placement.Node) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
}
