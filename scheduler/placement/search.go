package placement

import (
	"fmt"
	"math"
	"math/bits"

	"github.com/tatami-faas/tatami/functions"
)

// Choice is what an engine decided.
type Choice struct {
	// Node and ID are zero when nothing was chosen.
	Node NodeRef
	ID   functions.NodeID
	// Reservation is what Reserve holds.
	Reservation Reservation
	// Score is the mean share of the node's CPU and memory that is taken with the instance on it.
	Score float64
	// Quota is the bound that refused; zero when the quotas allow the instance.
	Quota Bound
	// Home says that the node was taken for holding the artifact, before a tighter one; Spread that it is among those that host the fewest of the
	// function's instances, Weighed that labels counted besides. Near says that it hosts what the instance should be near, Apart that it is among those that
	// host the least of what it should be apart from.
	Home, Spread, Weighed, Near, Apart bool
}

// Reason says for people why the node was chosen.
func (c *Choice) Reason() string {
	why := "the tightest that fits"
	switch {
	case c.Near:
		why = "nearly the tightest that fits, and it hosts what the function is to be near"
	case c.Home:
		why = "nearly the tightest that fits, and it holds the artifact"
	case c.Spread:
		why = "the tightest of those that host the fewest of the function's instances"
	case c.Apart:
		why = "the tightest of those that host the least of what the function is to be apart from"
	case c.Weighed:
		why = "the tightest that fits, its labels weighed"
	}
	return fmt.Sprintf("%s, %.0f%% taken with it", why, 100*c.Score)
}

// Placed reports whether a node was found.
func (c Choice) Placed() bool { return c.Node != 0 }

// query is a decision under way.
type query struct {
	cpu, memory int64
	slots       int32
	// room is what a node must have at least to be looked at.
	room         room
	row, col     int
	namespace    int32
	architecture int32
	needs        features
	affinity     *Affinity
	// zoned restricts to zones with tier peers, apart to nodes without; spread says that peers count.
	zoned, apart, spread bool
	tier                 int32
	best                 int32
	cost                 int64
}

// anyArchitecture is that of a request which names none, noArchitecture one that no node states.
const (
	anyArchitecture = 0
	noArchitecture  = -1
)

// Place finds the node for a request and reserves nothing.
func (e *Engine) Place(r *Request) Choice {
	q := e.ask(r)
	if bound := e.exceeds(q.namespace, demand(r)); bound.Name != "" {
		return Choice{Quota: bound}
	}
	if r.Spread != 0 && len(r.Peers) > 0 || len(r.Apart) > 0 {
		return e.apart(r)
	}
	e.search()
	if q.best == 0 {
		return Choice{}
	}
	return e.choice(r, e.settle(r))
}

// pull is for whose sake a node was taken that is not the tightest.
type pull uint8

const (
	none pull = iota
	byNear
	byHome
)

// settle turns from the best node to one that is nearly as tight and has what the request would like to find there.
func (e *Engine) settle(r *Request) pull {
	switch {
	case e.near(r.Near):
		return byNear
	case e.home(r.Digest):
		return byHome
	}
	return none
}

// demand is what a request takes: an instance takes a slot at least, and no more than are counted.
func demand(r *Request) functions.Resources {
	d := r.Resources
	return functions.Resources{CPU: max(d.CPU, 0), Memory: max(d.Memory, 0), Instances: int64(slots(max(d.Instances, 1)))}
}

func (e *Engine) ask(r *Request) *query {
	d := demand(r)
	e.q = query{cpu: d.CPU, memory: d.Memory, slots: slots(d.Instances), namespace: e.byName[r.Namespace], needs: needed(r.Needs), affinity: r.Affinity, cost: math.MaxInt64}
	q := &e.q
	q.room = roomOf(q.cpu, q.memory)
	q.row, q.col = cpuLevel(q.cpu), memoryLevel(q.memory)
	if q.row < e.leastRow || q.col < e.leastCol {
		e.expect(q.row, q.col)
	}
	if r.Architecture != "" {
		q.architecture = noArchitecture
		for i, a := range e.architectures {
			if a == r.Architecture {
				q.architecture = int32(i)
			}
		}
	}
	return q
}

func (e *Engine) choice(r *Request, by pull) Choice {
	i := e.q.best
	q := &e.q
	return Choice{
		Node: NodeRef(i), ID: e.ids[i], Score: score(e.cost(i, q.cpu, q.memory)), Home: by == byHome, Near: by == byNear,
		Spread: q.spread && r.Spread != 0 && len(r.Peers) > 0, Apart: len(r.Apart) > 0,
		Weighed: q.affinity != nil && q.affinity.preferred > 0,
	}
}

func score(cost int64) float64 { return 1 - float64(cost)/one }

// search finds the best node by cost and id. It looks first only for nodes about as tight as those that requests of the size found lately, which
// leaves out most of the others, then for less tight ones, and at last for any.
func (e *Engine) search() {
	q, usual := &e.q, &e.usual[e.q.row]
	for limit := 3 * *usual; q.best == 0; limit *= 8 {
		if q.cost = limit; limit <= 0 || limit > one {
			q.cost = math.MaxInt64
		}
		e.sweep()
		if q.cost == math.MaxInt64 {
			return
		}
	}
	*usual += (min(q.cost, one) - *usual) / 16
}

// sweep bounds what a class, a row and a cell may hold, and looks only where that is better than what was found. It begins with the largest nodes,
// of which what is left is the least.
func (e *Engine) sweep() {
	for _, i := range e.ranked {
		e.scan(&e.classes[i])
	}
}

// scan looks into the cells of a class that may hold something better, those of the least free CPU first.
func (e *Engine) scan(c *class) {
	q := &e.q
	rows := from(c.rows, q.row) & upTo(cpuLevel(c.cpuWithin(q)))
	if rows == 0 {
		return
	}
	penalty, ok := e.admits(c)
	if !ok {
		return
	}
	near := from(upTo(memoryLevel(c.memoryWithin(q))), q.col)
	most := c.most.of(q.cpu, q.memory) - penalty
	for ; rows != 0; rows &= rows - 1 {
		row := bits.TrailingZeros64(rows)
		for cols := c.cols[row] & near; cols != 0; cols &= cols - 1 {
			col := bits.TrailingZeros64(cols)
			cell := &c.cells[row*c.width+col]
			if cell.least()-most > q.cost || !cell.holds(&q.room) {
				continue
			}
			if cell.of < 0 {
				e.visit(c, e.pageOf(cell.of), penalty, most)
			} else {
				e.consider(c, cell.of, penalty)
			}
		}
	}
}

// admits reports whether nodes of the class may be chosen, and what its labels cost.
func (e *Engine) admits(c *class) (penalty int64, ok bool) {
	q := &e.q
	if q.architecture != anyArchitecture && c.key.architecture != anyArchitecture && c.key.architecture != q.architecture {
		return 0, false
	}
	if q.needs&c.key.lacks != 0 {
		return 0, false
	}
	if q.zoned && e.zones[c.key.zone].peers != q.tier {
		return 0, false
	}
	if q.affinity == nil || c.key.labels == 0 {
		return 0, true
	}
	penalty = e.verdict(q.affinity, c.key.labels)
	return penalty, penalty != excluded
}

// visit looks at what the entries of a page lead to, tightest first, and reports whether none that follows can be better.
func (e *Engine) visit(c *class, p *page, penalty, most int64) (done bool) {
	q := &e.q
	for i := range p.all() {
		x := &p.entries[i]
		if x.least()-most > q.cost {
			return true
		}
		switch {
		case !x.holds(&q.room):
		case x.of < 0:
			if e.visit(c, e.pageOf(x.of), penalty, most) {
				return true
			}
		case e.consider(c, x.of, penalty):
			return true
		}
	}
	return false
}

// consider takes a node with room for CPU and memory if it fits and is better, and reports whether none that follows in its cell can be better.
func (e *Engine) consider(c *class, i int32, penalty int64) (done bool) {
	q := &e.q
	n := &e.nodes[i]
	if n.cpu < q.cpu || n.memory < q.memory || n.slots < q.slots || q.apart && e.peers[i] > 0 {
		return false
	}
	labelled := c.key.labels != 0 || q.affinity == nil
	if !labelled {
		if penalty = q.affinity.judge(e.about[i].Labels); penalty == excluded {
			return false
		}
	}
	cost := e.cost(i, q.cpu, q.memory) + penalty
	if cost < q.cost || cost == q.cost && e.order[i] < e.order[q.best] {
		q.best, q.cost = i, cost
	}
	return c.uniform && labelled
}

// fits judges one node as search would: its cost, or ok false.
func (e *Engine) fits(t int32) (cost int64, ok bool) {
	q, n := &e.q, &e.nodes[t]
	if n.cpu < q.cpu || n.memory < q.memory || n.slots < q.slots || q.apart && e.peers[t] > 0 || n.standing != indexed {
		return 0, false
	}
	c := &e.classes[n.class]
	penalty, ok := e.admits(c)
	if !ok {
		return 0, false
	}
	if c.key.labels == 0 && q.affinity != nil {
		if penalty = q.affinity.judge(e.about[t].Labels); penalty == excluded {
			return 0, false
		}
	}
	return e.cost(t, q.cpu, q.memory) + penalty, true
}

// near turns to a node that hosts what the request should be near if one is nearly as tight as the best, and reports whether the best hosts that.
func (e *Engine) near(hosts []NodeRef) bool {
	q := &e.q
	hosts = hosts[:min(len(hosts), nearLooked)]
	var best int32
	limit := q.cost + nearCost
	for _, h := range hosts {
		if int32(h) == q.best {
			return true
		}
		if !e.valid(h) {
			continue
		}
		cost, ok := e.fits(int32(h))
		if ok && (cost < limit || cost == limit && (best == 0 || e.order[h] < e.order[best])) {
			best, limit = int32(h), cost
		}
	}
	if best == 0 {
		return false
	}
	q.best, q.cost = best, limit
	return true
}

// home turns to a node that holds the artifact if one is nearly as tight as the best, and reports whether it did.
func (e *Engine) home(digest string) bool {
	id, ok := e.byDigest[digest]
	if !ok {
		return false
	}
	q := &e.q
	var best int32
	limit := q.cost + homeCost
	for _, h := range e.recent[id] {
		if h == q.best {
			return false
		}
		if n := &e.nodes[h]; n.standing != indexed || int(n.row) < q.row || int(n.col) < q.col {
			continue
		}
		cost, ok := e.fits(h)
		if ok && (cost < limit || cost == limit && (best == 0 || e.order[h] < e.order[best])) {
			best, limit = h, cost
		}
	}
	if best == 0 || e.holds(q.best, id) {
		return false
	}
	q.best, q.cost = best, limit
	return true
}

// apart places away from the peers: in the zones with the fewest, there on the nodes with the fewest; and away from what is to be apart.
func (e *Engine) apart(r *Request) Choice {
	q := &e.q
	if r.Spread&SpreadZones != 0 && !e.zonal {
		e.zonal = true
		e.rebuild()
	}
	onNodes := r.Spread&SpreadNodes != 0
	for _, p := range r.Peers {
		if e.valid(p) {
			if onNodes {
				e.peers[p]++
			}
			e.zones[e.about[p].zone].peers++
		}
	}
	for _, p := range r.Apart {
		if e.valid(p) {
			e.peers[p]++
		}
	}
	q.zoned, q.spread, q.tier = r.Spread&SpreadZones != 0, true, -1
	by := none
	for e.nextTier() && q.best == 0 {
		q.apart = onNodes || len(r.Apart) > 0
		e.search()
		if q.best != 0 {
			by = e.settle(r)
		} else if q.apart {
			q.apart = false
			least := int32(math.MaxInt32)
			if onNodes {
				e.fewest(r.Peers, &least)
			}
			e.fewest(r.Apart, &least)
		}
		if !q.zoned {
			break
		}
	}
	for _, list := range [2][]NodeRef{r.Peers, r.Apart} {
		for _, p := range list {
			if e.valid(p) {
				e.peers[p], e.zones[e.about[p].zone].peers = 0, 0
			}
		}
	}
	if q.best == 0 {
		return Choice{}
	}
	return e.choice(r, by)
}

// nextTier turns to the zones with the next larger number of peers, and reports whether there are any.
func (e *Engine) nextTier() bool {
	q := &e.q
	tier := int32(math.MaxInt32)
	for i := range e.zones {
		if z := &e.zones[i]; z.nodes > 0 && z.peers > q.tier {
			tier = min(tier, z.peers)
		}
	}
	q.tier = tier
	return tier != math.MaxInt32
}

// fewest chooses among the peers the one with the fewest instances, which is least so far, then by cost and id.
func (e *Engine) fewest(peers []NodeRef, least *int32) {
	q := &e.q
	for _, p := range peers {
		if !e.valid(p) {
			continue
		}
		cost, ok := e.fits(int32(p))
		peers := e.peers[p]
		if !ok || peers > *least {
			continue
		}
		if peers < *least || cost < q.cost || cost == q.cost && e.order[p] < e.order[q.best] {
			q.best, q.cost, *least = int32(p), cost, peers
		}
	}
}
