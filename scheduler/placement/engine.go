package placement

import (
	"cmp"
	"maps"
	"math"
	"slices"

	"github.com/tatami-faas/tatami/functions"
)

// NodeRef names a node in an engine, from SetNode until RemoveNode. Zero is no node.
type NodeRef int32

// Spread is how the instances of a function are kept apart.
type Spread uint8

// The ways to spread; they add up. Zones come before nodes.
const (
	SpreadZones Spread = 1 << iota
	SpreadNodes
)

// manyClasses is up to how many classes the capacities of nodes are told apart exactly.
const manyClasses = 32

// homesLooked is how many of the nodes that hold an artifact are looked at, those that came to hold it last.
const homesLooked = 4

// nearLooked is how many of the nodes that host what a request should be near are looked at, the first; nearCost is how much less tight one may be.
const (
	nearLooked = 64
	nearCost   = one / 8
)

// homeCost is how much less tight a node may be for holding the artifact: a share of the node.
const homeCost = one / 256

// Engine keeps nodes, reservations and quotas, and decides in a time that does not grow with the number of nodes. One goroutine at a time uses it.
//
// Among the nodes that a request fits it takes the tightest: the least mean share of CPU and memory left free with the instance on it, then
// the smaller id. Instance slots bound, and do not weigh. Preferences are exact too, and bounded: preferred labels that a node lacks add up to a
// quarter to its share; of the nodes that host what the instance should be near one is taken that is no more than 1/8 less tight, else of those that came
// to hold the artifact last one that is no more than 1/256 less tight. A spread that is asked for comes first: the zone, then the node with the fewest
// peers, those that it should be apart from counted in.
type Engine struct {
	// nodes are first none; about, weights, order, peers and ids say more of each.
	nodes   []node
	about   []about
	weights []weight
	// order ranks the nodes by id.
	order []int64
	// peers counts the instances of the function that is being spread; zero between decisions.
	peers []int32
	ids   []functions.NodeID
	byID  map[functions.NodeID]int32
	gone  []int32
	// sorted are the nodes by id.
	sorted []int32

	// pages are the trees of all cells; the first is none.
	pages   []page
	noPages []int32
	classes []class
	// leastRow and leastCol are the lowest levels that anybody asked for.
	leastRow, leastCol int
	byKey              map[classKey]int32
	unused             []int32
	// ranked are the classes in use, those of the largest nodes first.
	ranked []int32
	// coarse says that capacities are rounded in the classes' keys, zonal that zones tell classes apart: they do once a spread over zones was asked for.
	coarse, zonal bool

	labels        []labelSet
	labelEpoch    uint64
	zones         []zone
	architectures []string

	artifacts []artifact
	// recent are the nodes that came to hold an artifact last.
	recent      [][homesLooked]int32
	byDigest    map[string]int32
	noArtifacts []int32

	// namespaces have first the one that nothing is known of.
	namespaces   []namespace
	byName       map[string]int32
	noNamespaces []int32
	defaults     functions.Quota
	// total is of all namespaces together.
	total namespace

	reservations   []reservation
	noReservations []int32
	live           int
	// unheard counts the nodes that are lost or have not yet reported.
	unheard int
	// capacity is of all open nodes.
	capacity functions.Resources

	// usual is the cost that requests of a CPU level found lately.
	usual [levels]int64

	q query
}

// about is what a decision seldom reads of a node.
type about struct {
	Node
	zone, architecture, labelSet int32
	// aside is what is kept from being given away beside the reservations.
	aside functions.Resources
	// artifacts are those it holds, sorted.
	artifacts []int32
}

type zone struct {
	name  string
	nodes int
	peers int32
}

type artifact struct {
	digest string
	homes  []int32
}

// NewEngine returns an engine without nodes.
func NewEngine() *Engine {
	return &Engine{
		leastRow: levels, leastCol: levels, nodes: []node{nowhere()}, about: make([]about, 1), weights: make([]weight, 1), order: make([]int64, 1), peers: make([]int32, 1), ids: make([]functions.NodeID, 1),
		pages: make([]page, 1), byID: map[functions.NodeID]int32{},
		byKey: map[classKey]int32{}, labels: make([]labelSet, 1), zones: make([]zone, 1), architectures: make([]string, 1),
		artifacts: make([]artifact, 1), recent: make([][homesLooked]int32, 1), byDigest: map[string]int32{},
		namespaces: []namespace{{quota: functions.Quota{}.Over(functions.Quota{})}}, byName: map[string]int32{}, reservations: make([]reservation, 1),
	}
}

// Ref returns the node with the id; zero when there is none.
func (e *Engine) Ref(id functions.NodeID) NodeRef { return NodeRef(e.byID[id]) }

// Reserved returns what reservations hold of a node, zero for one that is gone.
func (e *Engine) Reserved(r NodeRef) functions.Resources {
	if !e.valid(r) {
		return functions.Resources{}
	}
	return e.reserved(int32(r)).Sub(e.about[r].aside)
}

// Free returns what a node can still give; it is negative where more was adopted or set aside than it has.
func (e *Engine) Free(r NodeRef) functions.Resources {
	if !e.valid(r) {
		return functions.Resources{}
	}
	return e.about[r].Allocatable.Sub(e.reserved(int32(r)))
}

// Suits reports whether an open node would take the request if it were empty, leaving quotas aside.
func (e *Engine) Suits(r NodeRef, req *Request) bool {
	if !e.valid(r) || !e.nodes[r].open {
		return false
	}
	a := &e.about[r]
	return compatible(a.Architecture, req.Architecture) && needed(req.Needs)&lacked(a.Lacks) == 0 && demand(req).Fits(a.Allocatable) && (req.Affinity == nil || req.Affinity.judge(a.Labels) != excluded)
}

// Len returns how many nodes and reservations there are.
func (e *Engine) Len() (nodes, reservations int) { return len(e.byID), e.live }

func (e *Engine) valid(r NodeRef) bool {
	return r > 0 && int(r) < len(e.nodes) && e.nodes[r].joined()
}

// SetNode adds a node, or records what changed about it. What is reserved on it stays. The maps are copied.
func (e *Engine) SetNode(n *Node) NodeRef {
	i, known := e.byID[n.ID]
	if !known {
		i = e.join(n.ID)
	}
	e.leave(i)
	a, hot := &e.about[i], &e.nodes[i]
	open := e.nodes[i].open
	same := known && a.Architecture == n.Architecture && a.Zone == n.Zone && a.Allocatable == n.Allocatable && maps.Equal(a.Labels, n.Labels) &&
		lacked(a.Lacks) == lacked(n.Lacks)
	if !same {
		e.leaveClass(i)
	}
	reserved, labels := e.reserved(i), a.Labels
	e.unheard += unheard(n) - unheard(&a.Node)
	if open {
		e.capacity = e.capacity.Sub(a.Allocatable)
	}
	a.Node = *n
	a.Artifacts, a.Labels, a.Lacks = nil, labels, maps.Clone(n.Lacks)
	if !same {
		a.Labels = maps.Clone(n.Labels)
		e.weights[i] = weightOf(n.Allocatable)
		a.zone, a.architecture = e.internZone(n.Zone), e.internArchitecture(n.Architecture)
		e.zones[a.zone].nodes++
		a.labelSet = e.internLabels(n.Labels)
		e.joinClass(i)
	}
	if e.setOpen(i, n.Open()); n.Open() {
		e.capacity = e.capacity.Add(n.Allocatable)
	}
	free := n.Allocatable.Sub(reserved)
	hot.cpu, hot.memory, hot.slots = free.CPU, free.Memory, slots(free.Instances)
	e.enter(i)
	e.setArtifacts(i, n.Artifacts)
	return NodeRef(i)
}

// unheard is 1 for a node of which is not known what it could hold.
func unheard(n *Node) int {
	if n.ID != "" && (n.Lost || !n.Known) {
		return 1
	}
	return 0
}

func (e *Engine) setOpen(i int32, open bool) {
	r := &e.nodes[i]
	c := &e.classes[r.class]
	switch {
	case open && !r.open:
		c.open++
	case !open && r.open:
		c.open--
	}
	r.open = open
}

// slots narrows a number of instance slots: no node has so many.
func slots(n int64) int32 { return int32(min(max(n, math.MinInt32/2), math.MaxInt32/2)) }

// reserved is what reservations hold of a node, and what is set aside.
func (e *Engine) reserved(i int32) functions.Resources {
	n, all := &e.nodes[i], e.about[i].Allocatable
	return functions.Resources{CPU: all.CPU - n.cpu, Memory: all.Memory - n.memory, Instances: int64(slots(all.Instances) - n.slots)}
}

func (e *Engine) join(id functions.NodeID) int32 {
	var i int32
	if last := len(e.gone) - 1; last >= 0 {
		i, e.gone = e.gone[last], e.gone[:last]
	} else {
		e.nodes, e.about, e.weights = append(e.nodes, node{}), append(e.about, about{}), append(e.weights, weight{})
		e.order, e.peers, e.ids = append(e.order, 0), append(e.peers, 0), append(e.ids, "")
		i = int32(len(e.nodes) - 1)
	}
	e.nodes[i], e.about[i], e.ids[i] = nowhere(), about{}, id
	e.byID[id] = i
	at, _ := e.position(id)
	e.sorted = slices.Insert(e.sorted, at, i)
	e.rank(at)
	return i
}

// position finds where an id is, or would be, among the nodes by id.
func (e *Engine) position(id functions.NodeID) (int, bool) {
	return slices.BinarySearchFunc(e.sorted, id, func(o int32, id functions.NodeID) int { return cmp.Compare(e.about[o].ID, id) })
}

// rank numbers the node at a position between its neighbours, and all of them anew when there is no number left.
func (e *Engine) rank(at int) {
	const step = 1 << 32
	low, high := int64(0), int64(math.MaxInt64)
	if at > 0 {
		low = e.order[e.sorted[at-1]]
	}
	if at+1 < len(e.sorted) {
		high = e.order[e.sorted[at+1]]
	}
	if order := low + min((high-low)/2, step); order > low {
		e.order[e.sorted[at]] = order
		return
	}
	for k, i := range e.sorted {
		e.order[i] = int64(k+1) * step
	}
}

// RemoveNode forgets a node, and releases what is reserved on it.
func (e *Engine) RemoveNode(r NodeRef) {
	if !e.valid(r) {
		return
	}
	i := int32(r)
	e.leave(i)
	if e.nodes[i].open {
		e.capacity = e.capacity.Sub(e.about[i].Allocatable)
	}
	e.setOpen(i, false)
	e.unheard -= unheard(&e.about[i].Node)
	for k := 1; e.nodes[i].count > 0; k++ {
		if e.reservations[k].node == i {
			e.free(int32(k))
		}
	}
	e.setArtifacts(i, nil)
	e.leaveClass(i)
	at, _ := e.position(e.about[i].ID)
	e.sorted = slices.Delete(e.sorted, at, at+1)
	delete(e.byID, e.about[i].ID)
	e.nodes[i], e.about[i], e.order[i], e.ids[i] = nowhere(), about{}, 0, ""
	e.gone = append(e.gone, i)
}

func (e *Engine) internZone(name string) int32 {
	free := int32(-1)
	for i := range e.zones {
		switch {
		case e.zones[i].name == name:
			return int32(i)
		case i > 0 && e.zones[i].nodes == 0:
			free = int32(i)
		}
	}
	if free < 0 {
		e.zones = append(e.zones, zone{})
		free = int32(len(e.zones) - 1)
	}
	e.zones[free] = zone{name: name}
	return free
}

func (e *Engine) internArchitecture(name string) int32 {
	if i := slices.Index(e.architectures, name); i >= 0 {
		return int32(i)
	}
	e.architectures = append(e.architectures, name)
	return int32(len(e.architectures) - 1)
}

func (e *Engine) keyOf(i int32) classKey {
	a := &e.about[i]
	k := classKey{architecture: a.architecture, labels: a.labelSet, lacks: lacked(a.Lacks), cpu: max(a.Allocatable.CPU, 0), memory: max(a.Allocatable.Memory, 0)}
	if e.zonal {
		k.zone = a.zone
	}
	if e.coarse {
		k.cpu, k.memory = floor(level(k.cpu, classBits), classBits), floor(level(k.memory, classBits), classBits)
	}
	return k
}

func (e *Engine) joinClass(i int32) {
	key := e.keyOf(i)
	c, ok := e.byKey[key]
	if !ok && !e.coarse && len(e.byKey) >= manyClasses {
		// Too many to look at each.
		e.coarse = true
		e.rebuild()
		key = e.keyOf(i)
		c, ok = e.byKey[key]
	}
	if !ok {
		c = e.addClass(key)
	}
	alloc := e.about[i].Allocatable
	e.nodes[i].class = c
	e.classes[c].admit(e.weights[i], e.nodes[i].open, alloc)
}

func (e *Engine) addClass(key classKey) int32 {
	cpu, memory := key.cpu, key.memory
	if e.coarse {
		cpu, memory = floor(level(cpu, classBits)+1, classBits)-1, floor(level(memory, classBits)+1, classBits)-1
	}
	cl := newClass(key, cpu, memory)
	var c int32
	if last := len(e.unused) - 1; last >= 0 {
		c, e.unused = e.unused[last], e.unused[:last]
		e.classes[c] = cl
	} else {
		e.classes = append(e.classes, cl)
		c = int32(len(e.classes) - 1)
	}
	e.byKey[key] = c
	at, _ := slices.BinarySearchFunc(e.ranked, key, func(o int32, key classKey) int {
		k := &e.classes[o].key
		return cmp.Or(cmp.Compare(key.cpu, k.cpu), cmp.Compare(key.memory, k.memory), cmp.Compare(o, c))
	})
	e.ranked = slices.Insert(e.ranked, at, c)
	return c
}

// leaveClass takes a node that is not indexed out of its class.
func (e *Engine) leaveClass(i int32) {
	r, a := &e.nodes[i], &e.about[i]
	if !r.joined() {
		return
	}
	e.zones[a.zone].nodes--
	e.dropLabels(a.labelSet)
	c := &e.classes[r.class]
	if r.open {
		c.open--
	}
	if c.members--; c.members == 0 {
		delete(e.byKey, c.key)
		c.rows = 0
		e.unused = append(e.unused, r.class)
		at := slices.Index(e.ranked, r.class)
		e.ranked = slices.Delete(e.ranked, at, at+1)
	}
	r.class = -1
}

// rebuild builds the classes anew, what they have in common having changed.
func (e *Engine) rebuild() {
	clear(e.byKey)
	e.classes, e.unused, e.ranked = nil, nil, nil
	e.pages, e.noPages = e.pages[:1], nil
	for i := range e.nodes {
		r := &e.nodes[i]
		if !r.joined() {
			continue
		}
		r.row, r.col, r.standing = 0, 0, out
		e.joinClass(int32(i))
		e.enter(int32(i))
	}
}

// setArtifacts records which artifacts a node holds.
func (e *Engine) setArtifacts(i int32, digests map[string]struct{}) {
	a := &e.about[i]
	for k := len(a.artifacts) - 1; k >= 0; k-- {
		if d := e.artifacts[a.artifacts[k]].digest; !contains(digests, d) {
			e.Drop(NodeRef(i), d)
		}
	}
	if len(digests) == len(a.artifacts) {
		return
	}
	for _, d := range slices.Sorted(maps.Keys(digests)) {
		e.Hold(NodeRef(i), d)
	}
}

func contains(set map[string]struct{}, s string) bool {
	_, ok := set[s]
	return ok
}

// Hold records that a node has an artifact, or will.
func (e *Engine) Hold(r NodeRef, digest string) {
	if !e.valid(r) {
		return
	}
	id, ok := e.byDigest[digest]
	if !ok {
		if last := len(e.noArtifacts) - 1; last >= 0 {
			id, e.noArtifacts = e.noArtifacts[last], e.noArtifacts[:last]
		} else {
			e.artifacts, e.recent = append(e.artifacts, artifact{}), append(e.recent, [homesLooked]int32{})
			id = int32(len(e.artifacts) - 1)
		}
		e.artifacts[id].digest = digest
		e.byDigest[digest] = id
	}
	a := &e.about[r]
	at, held := slices.BinarySearch(a.artifacts, id)
	if held {
		return
	}
	a.artifacts = slices.Insert(a.artifacts, at, id)
	e.artifacts[id].homes = append(e.artifacts[id].homes, int32(r))
	e.recall(id)
}

// recall finds anew which nodes came to hold an artifact last.
func (e *Engine) recall(id int32) {
	homes, last := e.artifacts[id].homes, &e.recent[id]
	*last = [homesLooked]int32{}
	copy(last[:], homes[max(len(homes)-homesLooked, 0):])
}

// Drop records that a node no longer has an artifact.
func (e *Engine) Drop(r NodeRef, digest string) {
	id, ok := e.byDigest[digest]
	if !ok || !e.valid(r) {
		return
	}
	a := &e.about[r]
	at, held := slices.BinarySearch(a.artifacts, id)
	if !held {
		return
	}
	a.artifacts = slices.Delete(a.artifacts, at, at+1)
	art := &e.artifacts[id]
	at = slices.Index(art.homes, int32(r))
	art.homes = slices.Delete(art.homes, at, at+1)
	e.recall(id)
	if len(art.homes) == 0 {
		delete(e.byDigest, digest)
		art.digest = ""
		e.noArtifacts = append(e.noArtifacts, id)
	}
}

func (e *Engine) holds(i, artifact int32) bool {
	_, ok := slices.BinarySearch(e.about[i].artifacts, artifact)
	return ok
}
