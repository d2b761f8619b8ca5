package placement

import "github.com/tatami-faas/tatami/functions"

// Reservation names what is reserved for one instance. It is never used again for another; zero is none.
type Reservation uint64

// reservation is what one instance holds of a node and of its namespace's quota, and what it was made for, in one cache line: there are many, and
// each is read once.
type reservation struct {
	cpu, memory                int64
	instances, node, namespace int32
	generation                 uint32
	affinity                   *Affinity
	digest                     string
	architecture               int32
	needs                      features
}

func (v *reservation) amount() functions.Resources {
	return functions.Resources{CPU: v.cpu, Memory: v.memory, Instances: int64(v.instances)}
}

func (v *reservation) set(amount functions.Resources) {
	v.cpu, v.memory, v.instances = amount.CPU, amount.Memory, slots(amount.Instances)
}

// Reserve places a request and holds what it takes: the decision and the reservation are one step.
func (e *Engine) Reserve(r *Request) Choice {
	c := e.Place(r)
	if c.Placed() {
		c.Reservation = e.hold(int32(c.Node), r, e.q.namespace)
	}
	return c
}

// Adopt holds what an instance takes that already is on a node, as its worker reports, whether or not it fits. It returns zero when there is no
// such node.
func (e *Engine) Adopt(n NodeRef, r *Request) Reservation {
	if !e.valid(n) {
		return 0
	}
	return e.hold(int32(n), r, e.byName[r.Namespace])
}

func (e *Engine) hold(i int32, r *Request, namespace int32) Reservation {
	var k int32
	if last := len(e.noReservations) - 1; last >= 0 {
		k, e.noReservations = e.noReservations[last], e.noReservations[:last]
	} else {
		e.reservations = append(e.reservations, reservation{})
		k = int32(len(e.reservations) - 1)
	}
	v := &e.reservations[k]
	if namespace == 0 {
		namespace = e.internNamespace(r.Namespace)
	}
	v.set(demand(r))
	v.namespace = namespace
	v.affinity, v.digest, v.architecture, v.needs = r.Affinity, r.Digest, e.internArchitecture(r.Architecture), needed(r.Needs)
	v.generation++
	e.namespaces[v.namespace].count++
	e.live++
	v.node = i
	e.nodes[i].count++
	e.account(v, v.amount())
	return Reservation(uint64(v.generation)<<32 | uint64(k))
}

// account adds to what the reservation's node and namespace hold.
func (e *Engine) account(v *reservation, d functions.Resources) {
	s := &e.namespaces[v.namespace]
	s.used, e.total.used = s.used.Add(d), e.total.used.Add(d)
	e.take(v.node, d)
}

// take adds to what is reserved on a node.
func (e *Engine) take(i int32, d functions.Resources) {
	e.leave(i)
	n := &e.nodes[i]
	n.cpu, n.memory, n.slots = n.cpu-d.CPU, n.memory-d.Memory, n.slots-slots(d.Instances)
	e.enter(i)
}

// find returns the slot of a live reservation, or 0.
func (e *Engine) find(r Reservation) int32 {
	k := uint32(r)
	if k == 0 || int(k) >= len(e.reservations) {
		return 0
	}
	if v := &e.reservations[k]; v.node == 0 || v.generation != uint32(r>>32) {
		return 0
	}
	return int32(k)
}

// Release gives back what is held. It reports false, and does nothing, when the reservation is no more.
func (e *Engine) Release(r Reservation) bool {
	k := e.find(r)
	if k == 0 {
		return false
	}
	e.free(k)
	return true
}

func (e *Engine) free(k int32) {
	v := &e.reservations[k]
	e.nodes[v.node].count--
	e.account(v, functions.Resources{}.Sub(v.amount()))
	i := v.namespace
	*v = reservation{generation: v.generation}
	e.noReservations = append(e.noReservations, k)
	e.live--
	e.namespaces[i].count--
	e.forgetNamespace(i)
}

// Adjust sets what a reservation holds, as its worker reports. It reports false when the reservation is no more.
func (e *Engine) Adjust(r Reservation, amount functions.Resources) bool {
	k := e.find(r)
	if k == 0 {
		return false
	}
	v := &e.reservations[k]
	amount = demand(&Request{Resources: amount})
	more := amount.Sub(v.amount())
	v.set(amount)
	e.account(v, more)
	return true
}

// Held returns the node and the amount of a reservation; the node is zero when the reservation is no more.
func (e *Engine) Held(r Reservation) (NodeRef, functions.Resources) {
	v := &e.reservations[e.find(r)]
	return NodeRef(v.node), v.amount()
}

// Move carries a reservation to another node that it fits. It reports false, and does nothing, when it does not or is no more.
func (e *Engine) Move(r Reservation, to NodeRef) bool {
	k := e.find(r)
	if k == 0 || !e.valid(to) {
		return false
	}
	if v := &e.reservations[k]; !e.nodes[to].open || !v.amount().Fits(e.Free(to)) {
		return false
	}
	e.move(k, int32(to))
	return true
}

func (e *Engine) move(k, to int32) {
	v := &e.reservations[k]
	e.nodes[v.node].count--
	e.take(v.node, functions.Resources{}.Sub(v.amount()))
	v.node = to
	e.nodes[to].count++
	e.take(to, v.amount())
}
