package state

import (
	"cmp"
	"slices"
	"time"

	"github.com/tatami-faas/tatami/functions"
	"github.com/tatami-faas/tatami/internal/bus"
	"github.com/tatami-faas/tatami/scheduler/autoscale"
	"github.com/tatami-faas/tatami/scheduler/placement"
)

// What silence counts after.
const (
	// MissedBeats is for how many of the scheduler's own beats in a row a node may be silent before its instances count as gone: its worker says
	// something between any two of them. One that was only slow is taken up as it is when it is heard of again.
	MissedBeats = 5
	// NodeForgotten is when a lost node is no longer shown.
	NodeForgotten = 5 * time.Minute
	// DemandTimeout is how long a gateway's last statement holds.
	DemandTimeout = autoscale.Silence
)

// State is the scheduler's whole knowledge. One goroutine at a time uses it. Its maps are for reading: the methods keep them consistent.
type State struct {
	Nodes     map[functions.NodeID]*Node
	Instances map[functions.InstanceID]*Instance
	Functions map[functions.Ref]*Function
	// Quotas are the records as they are, those of functions.QuotaDefaults and QuotaTotal among them.
	Quotas map[string]functions.Quota
	// Clock is the highest value of an instance that was given up to make room; see keepalive.Value.
	Clock float64
	// Ended holds the instances that ended last, oldest first.
	Ended []bus.InstanceStatus

	// engine holds what is reserved on nodes and of quotas.
	engine   *placement.Engine
	gateways map[string]*gateway
	// settings are the operators' records, of nodes that were never heard of too.
	settings map[functions.NodeID]functions.NodeSettings
	// order holds the nodes by id, list the functions in no order.
	order []*Node
	list  []*Function
	// byLabel holds the functions with a label, by name, labels those by which a function is found.
	byLabel map[label][]functions.Ref
	labels  map[functions.Ref]map[string]string
}

// New returns an empty state.
func New() *State {
	return &State{
		Nodes:     map[functions.NodeID]*Node{},
		Instances: map[functions.InstanceID]*Instance{},
		Functions: map[functions.Ref]*Function{},
		Quotas:    map[string]functions.Quota{},
		engine:    placement.NewEngine(),
		gateways:  map[string]*gateway{},
		settings:  map[functions.NodeID]functions.NodeSettings{},
		byLabel:   map[label][]functions.Ref{},
		labels:    map[functions.Ref]map[string]string{},
	}
}

// Node is a node and what its worker last said.
type Node struct {
	placement.Node
	// Ref names it in the engine.
	Ref    placement.NodeRef
	Report bus.NodeState
	Boot   string
	// Sequence is the last report's.
	Sequence uint64
	LastSeen time.Time
	// Missed counts the scheduler's beats since then.
	Missed int
	// Settings are the operator's; the zero value wants nothing.
	Settings functions.NodeSettings
	// Asked is when its worker was last asked for a full report.
	Asked time.Time
	// Emptying is why its instances are to leave by the scheduler's own choice; empty where they are not.
	Emptying string
	// Closed is why nothing more is to be placed on it by the choice of the pool that it belongs to; empty where it may be.
	Closed string
	// DrainedFrom is the most instances that it had while it was to be drained.
	DrainedFrom int
	// Unlisted says that a report which listed the artifacts may have been missed.
	Unlisted bool
	// Instances are those placed on it.
	Instances map[functions.InstanceID]*Instance
}

// Instance is an instance as last reported, or as commanded when no report named it yet.
type Instance struct {
	bus.InstanceReport
	Node functions.NodeID
	// Choice is why it is where it is; zero for one that was learnt from a report.
	Choice placement.Choice
	// Reservation is what it holds.
	Reservation placement.Reservation
	// Commanded is when its start was last commanded; zero for one that was learnt from a report.
	Commanded time.Time
	// First is when its start was first commanded.
	First time.Time
	// Uses counts the reports of it that told of a use, and its start; Clock is the state's at the last of them.
	Uses  int
	Clock float64
	// Confirmed says that a report named it.
	Confirmed bool
	// ReadyAt is when it became ready; zero before.
	ReadyAt time.Time
	// Reported is when the last report that named it came in.
	Reported time.Time
	// Asked is when its worker was last asked about it.
	Asked time.Time
	// Stopping is when it was last told to stop if idle, DrainSent when to drain; zero when not.
	Stopping  time.Time
	DrainSent time.Time
	// Deadline is when its drain ends by force.
	Deadline time.Time
}

// Active reports whether the instance takes requests, or will, and was not told to leave.
func (in *Instance) Active() bool {
	return (in.State.Serves() || in.State == functions.InstanceStarting) && in.Stopping.IsZero() && in.DrainSent.IsZero()
}

// Leaving reports whether the instance was told to leave and holds no slot: what it holds will be free soon.
func (in *Instance) Leaving() bool {
	return in.Held == 0 && (!in.Stopping.IsZero() || !in.DrainSent.IsZero() || in.State == functions.InstanceDraining)
}

// Placement says for people why the instance is on its node.
func (in *Instance) Placement() string {
	if !in.Choice.Placed() {
		return "learnt from the worker's report"
	}
	return in.Choice.Reason()
}

// FunctionList returns the functions, to be gone through bit by bit: a new one comes last, and the last one takes the place of one that is gone. The
// slice is the state's own.
func (s *State) FunctionList() []*Function { return s.list }

// NodeOrder returns the nodes by id. The slice is the state's own.
func (s *State) NodeOrder() []*Node { return s.order }

// Engine returns where instances are reserved, for reading.
func (s *State) Engine() *placement.Engine { return s.engine }

// Reserved returns what instances hold of a node, Free what is left of it.
func (s *State) Reserved(n *Node) functions.Resources { return s.engine.Reserved(n.Ref) }

// Free returns what a node can still give; it is negative where more runs than the node has.
func (s *State) Free(n *Node) functions.Resources { return s.engine.Free(n.Ref) }

// Budget returns the namespace's quota as it holds, and its use; those of all together for functions.QuotaTotal.
func (s *State) Budget(namespace string) placement.Budget { return s.engine.Budget(namespace) }

// SetQuota records a namespace's quota, the defaults or the total.
func (s *State) SetQuota(q functions.Quota) {
	s.Quotas[q.Namespace] = q
	s.engine.SetQuota(q)
}

// DeleteQuota removes a namespace's quota, the defaults or the total.
func (s *State) DeleteQuota(namespace string) {
	delete(s.Quotas, namespace)
	s.engine.DeleteQuota(namespace)
}

// place tells the engine what changed about a node.
func (s *State) place(n *Node) { n.Ref = s.engine.SetNode(&n.Node) }

// Reserve finds the node for an instance whose start is about to be commanded and adds the instance there, in one step: from now on it counts. It
// returns nil where the choice is none, and asks for an id only where it is not.
func (s *State) Reserve(now time.Time, in Instance, r *placement.Request, id func() functions.InstanceID) (*Instance, placement.Choice) {
	c := s.engine.Reserve(r)
	if !c.Placed() {
		return nil, c
	}
	in.Instance = id()
	in.Node, in.Choice, in.Reservation, in.Reserved = c.ID, c, c.Reservation, r.Resources
	in.State = functions.InstanceStarting
	in.Since, in.Started, in.Commanded, in.First = now, now, now, now
	return s.insert(&in), c
}

// adopt adds an instance that a report named first.
func (s *State) adopt(n *Node, in *Instance) *Instance {
	r := s.function(in.Ref()).request(in.Revision)
	r.Resources, r.Namespace = in.Reserved, in.Namespace
	in.Reservation = s.engine.Adopt(n.Ref, &r)
	_, in.Reserved = s.engine.Held(in.Reservation)
	return s.insert(in)
}

func (s *State) insert(in *Instance) *Instance {
	in.Uses, in.Clock = 1, s.Clock
	s.Instances[in.Instance] = in
	if n := s.Nodes[in.Node]; n != nil {
		n.Instances[in.Instance] = in
	}
	s.function(in.Ref()).Instances[in.Instance] = in
	return in
}

// Remove forgets an instance and frees what it holds.
func (s *State) Remove(id functions.InstanceID) {
	in := s.Instances[id]
	if in == nil {
		return
	}
	s.engine.Release(in.Reservation)
	in.Reservation = 0
	delete(s.Instances, id)
	if n := s.Nodes[in.Node]; n != nil {
		delete(n.Instances, id)
	}
	if f := s.Functions[in.Ref()]; f != nil {
		delete(f.Instances, id)
		s.forget(f)
	}
}

func (s *State) function(r functions.Ref) *Function {
	f := s.Functions[r]
	if f == nil {
		f = newFunction(r)
		f.place, s.list = len(s.list), append(s.list, f)
		s.Functions[r] = f
	}
	return f
}

// forget drops a function that is deleted and has nothing left.
func (s *State) forget(f *Function) {
	if f.Record == nil && len(f.Instances) == 0 && len(f.Revisions) == 0 {
		delete(s.Functions, f.Ref)
		last := len(s.list) - 1
		s.list[f.place] = s.list[last]
		s.list[f.place].place = f.place
		s.list[last] = nil
		s.list = s.list[:last]
	}
}

// position finds where a node is, or would be, among the nodes by id.
func (s *State) position(id functions.NodeID) (int, bool) {
	return slices.BinarySearchFunc(s.order, id, func(n *Node, id functions.NodeID) int { return cmp.Compare(n.ID, id) })
}

func (s *State) addNode(id functions.NodeID) *Node {
	n := &Node{Instances: map[functions.InstanceID]*Instance{}}
	n.ID, n.Settings = id, s.settings[id]
	n.restrict()
	s.Nodes[id] = n
	at, _ := s.position(id)
	s.order = slices.Insert(s.order, at, n)
	s.place(n)
	return n
}

func (s *State) forgetNode(n *Node) {
	at, _ := s.position(n.ID)
	s.order = slices.Delete(s.order, at, at+1)
	delete(s.Nodes, n.ID)
	s.engine.RemoveNode(n.Ref)
}
